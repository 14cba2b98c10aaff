"""The pretrained diffusion base and what it brings."""
