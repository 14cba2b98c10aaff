"""Converts between images (uint8 arrays) and pixels (float tensors)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.types import ImageArray


def to_pixels(images: Sequence[ImageArray] | NDArray[np.uint8]) -> Tensor:
    """Convert `(H, W, 3)` uint8 images, or one array of them, to `(B, 3, H, W)` float pixels in [-1, 1]."""
    return torch.from_numpy(np.stack(list(images))).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def to_images(pixels: Tensor) -> list[ImageArray]:
    """Convert `(B, 3, H, W)` pixels in [-1, 1] to `(H, W, 3)` uint8 images; values outside are clipped."""
    levels = pixels.detach().float().clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)
    return list(levels.permute(0, 2, 3, 1).cpu().numpy())


def to_levels(pixels: Tensor, *, grey: bool) -> NDArray[np.float32]:
    """Convert pixels `(3, H, W)` to grey levels `(H, W, 3)`; without a tint if the photographs are grey."""
    levels = (pixels.clamp(-1, 1) + 1) * 127.5
    if grey:
        levels = levels.mean(0, keepdim=True).expand_as(levels)
    return np.ascontiguousarray(levels.permute(1, 2, 0).float().cpu().numpy())
