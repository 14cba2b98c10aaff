"""DualAnoDiff on any base in diffusers' Stable Diffusion folder format: training, sampling, masks, checks, datasets."""
