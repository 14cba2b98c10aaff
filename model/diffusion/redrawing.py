"""Finds what a model's scale and autoencoder lose of real defects."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image

from model.data.detail import BLURRED, Levels, RealDetail, Redrawn, learn_detail
from model.data.laying import enlarged
from model.data.pixels import to_levels, to_pixels
from model.data.two_levels import find_two_levels
from model.diffusion.vae import decode, encode
from model.types import ImageArray, MaskArray, Pair


@torch.no_grad()
def lost_detail(
    vae: AutoencoderKL, reals: Sequence[Pair], scale: Callable[[MaskArray], float], side: int, cell: int, *, grey: bool
) -> RealDetail | None:
    """Learn the detail of real defects of one type, see `model.data.detail`.

    Photographs of two levels have only what compression left on these.

    Args:
        reals: crops at their photographs' own scale.
        scale: model pixels per photograph pixel at which a defect is worked on.
        side: of the model's windows, pixels; larger crops are divided, as they are drawn.
        cell: pixels per latent cell, along one side.
        grey: whether the photographs have no colour.
    """
    crops, levels = [], find_two_levels(reals)
    for number, real in enumerate(reals):
        if real.mask.any():
            factor = scale(real.mask)
            blurred = max(1, round(BLURRED / factor))
            for image, mask in _pieces(real, round(side / factor)):
                smooth = levels.nearest(image) if levels else _redrawn(vae, image, factor, cell, grey=grey)
                crops.append(Redrawn(image, smooth, mask, number, real.name, blurred))
    return learn_detail(crops, levels)


def _pieces(real: Pair, length: int) -> Iterator[tuple[ImageArray, MaskArray]]:
    """Divide a crop into squares of so many pixels, and yield those that show the defect."""
    height, width = real.mask.shape
    for top in range(0, height, length):
        for left in range(0, width, length):
            place = np.s_[top : top + length, left : left + length]
            if real.mask[place].any():
                yield real.image[place], real.mask[place]


def _redrawn(vae: AutoencoderKL, image: ImageArray, factor: float, cell: int, *, grey: bool) -> Levels:
    """Return an image as a model that works at this scale would draw it at best."""
    height, width = image.shape[:2]
    across, down = (max(cell, round(length * factor / cell) * cell) for length in (width, height))
    small = Image.fromarray(image).resize((across, down), Image.Resampling.LANCZOS)
    latents = encode(vae, to_pixels(np.asarray(small)[None]))
    return enlarged(to_levels(decode(vae, latents)[0], grey=grey), (width, height))
