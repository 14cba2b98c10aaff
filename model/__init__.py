"""DualAnoDiff on any base in diffusers' Stable Diffusion folder format: training, sampling, masks, checks, datasets."""

import os

# Intel's library, with which PyTorch multiplies in single precision, sums in an order that depends on where a row lies
# in memory, unless it is told not to. It reads this at its first product.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
