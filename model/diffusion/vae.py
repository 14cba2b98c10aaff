"""Between pixels and latents: the base's autoencoder, in batches that fit the memory."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from model.kernels.batch_invariance import fixed_batches

ENCODE_PIXELS, ENCODE_MOST = 16 * 128**2, 16
"""Pixels and pictures encoded at once, at most: on GPUs sixteen of 512 × 512 would take more than 12 GB."""


@torch.no_grad()
def encode(vae: AutoencoderKL, pixels: Tensor) -> Tensor:
    """Pixels `(B, 3, H, W)` in [-1, 1] → latents `(B, C_lat, H/f, W/f)`: the posterior's mean × the scaling factor."""
    pixels = pixels.to(vae.device, vae.dtype, memory_format=torch.channels_last)
    mean = fixed_batches(lambda rows: vae.encode(rows).latent_dist.mean, pixels)
    return mean.float() * vae.config.scaling_factor


@torch.no_grad()
def decode(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """Latents → pixels in about [-1, 1]."""
    latents = (latents / vae.config.scaling_factor).to(vae.dtype, memory_format=torch.channels_last)
    pixels = fixed_batches(lambda rows: vae.decode(rows).sample, latents)
    return pixels.float()


def encode_batch(side: int) -> int:
    """How many square pictures are encoded at once: an even number, since on CPUs they go two by two."""
    return min(ENCODE_MOST, max(2, ENCODE_PIXELS // side**2 // 2 * 2))
