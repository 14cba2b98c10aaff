"""Encodes and decodes with the base's autoencoder, in batches that fit into memory."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from model.kernels.batch_invariance import fixed_batches
from model.kernels.group_norm import use_full_precision_norms
from model.runtime.shared_weights import sharing_frozen_weights

ENCODE_PIXELS, ENCODE_MOST = 16 * 128**2, 16
"""Most pixels and images encoded at once; on GPUs sixteen of 512 × 512 would take more than 12 GB."""


@torch.no_grad()
def encode(vae: AutoencoderKL, pixels: Tensor) -> Tensor:
    """Encode pixels `(B, 3, H, W)` in [-1, 1] as latents `(B, C_lat, H/f, W/f)`: posterior mean × scaling factor."""
    pixels = pixels.to(vae.device, vae.dtype, memory_format=torch.channels_last)
    mean = fixed_batches(lambda rows: vae.encode(rows).latent_dist.mean, pixels)
    return mean.float() * vae.config.scaling_factor


@torch.no_grad()
def decode(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """Decode latents to pixels in about [-1, 1]."""
    latents = (latents / vae.config.scaling_factor).to(vae.dtype, memory_format=torch.channels_last)
    pixels = fixed_batches(lambda rows: vae.decode(rows).sample, latents)
    return pixels.float()


def encode_batch(side: int) -> int:
    """Return how many square images to encode, or decode, at once: an even number, since CPUs take two at a time."""
    return min(ENCODE_MOST, max(2, ENCODE_PIXELS // side**2 // 2 * 2))


def autoencoder_for_sampling(vae: AutoencoderKL, dtype: torch.dtype) -> AutoencoderKL:
    """Copy an autoencoder in one precision and the faster memory layout."""
    copied = sharing_frozen_weights(vae)
    use_full_precision_norms(copied)
    nn.Module.to(copied, dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]  # a gap of torch's own types
    return copied.requires_grad_(False)
