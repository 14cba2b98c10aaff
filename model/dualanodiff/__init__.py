"""DualAnoDiff: the two-branch U-Net with SAIM and BCM, its loss and its training."""
