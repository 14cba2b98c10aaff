"""Averaging the anomaly branch's cross-attention maps into one map per pair."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def average_maps(maps: Sequence[Tensor], count: int, shape: tuple[int, int] | torch.Size) -> Tensor:
    """Mean over layers and heads, at one resolution.

    Args:
        maps: per layer `(rows, heads, n, L)`, the first `count` rows conditional.
        count: pairs in the batch.
        shape: `(h, w)` of the latents; a layer's n is that of a square of the same aspect, halved some times.

    Returns:
        `(count, h, w, L)`.
    """
    height, width = shape
    resized = []
    for layer in maps:
        scale = round((height * width / layer.shape[2]) ** 0.5)
        grid = layer[:count].mean(1).transpose(1, 2).unflatten(2, (height // scale, width // scale))
        resized.append(F.interpolate(grid.float(), size=(height, width), mode="bilinear"))
    return torch.stack(resized).mean(0).permute(0, 2, 3, 1)
