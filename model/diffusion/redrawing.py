"""Finds what a model's scale and autoencoder lose of real defects."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image

from model.data.detail import RealDetail, Redrawn, learn_detail
from model.data.laying import enlarged
from model.data.pixels import to_levels, to_pixels
from model.diffusion.vae import decode, encode
from model.types import MaskArray, Pair


@torch.no_grad()
def lost_detail(
    vae: AutoencoderKL, reals: Sequence[Pair], scale: Callable[[MaskArray], float], cell: int, *, grey: bool
) -> RealDetail | None:
    """Learn the detail of real defects of one type, see `model.data.detail`.

    Args:
        reals: crops at their photographs' own scale.
        scale: model pixels per photograph pixel at which a defect is worked on.
        cell: pixels per latent cell, along one side.
        grey: whether the photographs have no colour.
    """
    crops = []
    for real in reals:
        if not real.mask.any():
            continue
        height, width = real.mask.shape
        factor = scale(real.mask)
        across, down = (max(cell, round(length * factor / cell) * cell) for length in (width, height))
        small = Image.fromarray(real.image).resize((across, down), Image.Resampling.LANCZOS)
        latents = encode(vae, to_pixels(np.asarray(small)[None]))
        smooth = enlarged(to_levels(decode(vae, latents)[0], grey=grey), (width, height))
        crops.append(Redrawn(real.image, smooth, real.mask))
    return learn_detail(crops)
