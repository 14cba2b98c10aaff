"""Denoises canvases that are larger than what a model was trained on, in overlapping windows of the model's size.

At every step the predictions of all windows are averaged where they overlap (MultiDiffusion, Bar-Tal et al. 2023), here
with weights that fall towards a window's edge. Only the windows that a defect may lie in are computed; nothing is
predicted elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

STRIDE = 0.625
"""Distance of neighbouring windows, as a share of their side."""

LEAST_WEIGHT = 0.02
"""Weight of a window's corner, beside 1 in its middle."""

MARGIN = 8
"""A window is computed if cells to be filled lie further than this share of its side, one part in `MARGIN`, inside."""


@dataclass(frozen=True)
class Tiling:
    """Windows on a batch of canvases, all padded to one size at the right and bottom.

    Attributes:
        places: canvas, top and left of every window, in latent cells.
        side: of a window, cells.
        shape: height and width of the padded canvases, cells.
        count: number of canvases.
    """

    places: tuple[tuple[int, int, int], ...]
    side: int
    shape: tuple[int, int]
    count: int

    @cached_property
    def covered(self) -> Tensor:
        """Where some window lies, `(B, 1, H, W)` bool, on the CPU."""
        return self._weights > 0

    @cached_property
    def _weights(self) -> Tensor:
        total = torch.zeros(self.count, 1, *self.shape)
        for canvas, top, left in self.places:
            total[canvas, :, top : top + self.side, left : left + self.side] += window_weight(self.side)
        return total

    def scaled(self, factor: int) -> Tiling:
        """Return the same windows in cells that are `factor` times as fine."""
        places = tuple((canvas, top * factor, left * factor) for canvas, top, left in self.places)
        height, width = self.shape
        return Tiling(places, self.side * factor, (height * factor, width * factor), self.count)

    def cut(self, canvases: Tensor) -> Tensor:
        """Cut the windows out: `(..., B, C, H, W)` → `(..., N, C, side, side)`."""
        ends = [(canvas, top, top + self.side, left, left + self.side) for canvas, top, left in self.places]
        windows = [canvases[..., canvas, :, top:bottom, left:right] for canvas, top, bottom, left, right in ends]
        return torch.stack(windows, dim=-4)

    def join(self, windows: Tensor) -> Tensor:
        """Average windows `(..., N, C, side, side)` to canvases `(..., B, C, H, W)`; 0 where there is none.

        Where a single window lies, its values stay as they are, bit for bit.
        """
        weight, total = window_weight(self.side).to(windows), self._weights.to(windows)
        shape = (*windows.shape[:-4], self.count, windows.shape[-3], *self.shape)
        joined = torch.zeros(shape, device=windows.device, dtype=windows.dtype)
        for number, (canvas, top, left) in enumerate(self.places):
            area = joined[..., canvas, :, top : top + self.side, left : left + self.side]
            area += windows[..., number, :, :, :] * (
                weight / total[canvas, :, top : top + self.side, left : left + self.side]
            )
        return joined


def window_weight(side: int) -> Tensor:
    """Return the weight of each cell of a window, `(side, side)` in (0, 1]."""
    edge = torch.hann_window(side + 2, periodic=False)[1:-1]
    return torch.outer(edge, edge).clamp(min=LEAST_WEIGHT)


def tile(wanted: Tensor, sides: Sequence[int], side: int) -> Tiling | None:
    """Cover the cells of canvases that are to be filled.

    Args:
        wanted: `(B, H, W)` bool, the cells to be filled.
        sides: of the canvases before they were padded, cells.
        side: of the windows, cells.

    Returns:
        None if every canvas is one window. A canvas without cells to be filled has one window.
    """
    if all(each == side for each in sides):
        return None
    places = []
    for number, canvas in enumerate(sides):
        starts = _starts(canvas, side)
        own = [(number, top, left) for top in starts for left in starts]
        needed = [place for place in own if len(own) == 1 or _is_needed(wanted, place, side, canvas)]
        places += needed or own[:1]
    return Tiling(tuple(places), side, (wanted.shape[-2], wanted.shape[-1]), len(sides))


def _starts(canvas: int, side: int) -> list[int]:
    """Place windows along a canvas at even distances of at most `STRIDE`."""
    count = 1 + -(-(canvas - side) // max(1, int(side * STRIDE)))
    return [round(number * (canvas - side) / max(1, count - 1)) for number in range(count)]


def _is_needed(wanted: Tensor, place: tuple[int, int, int], side: int, canvas: int) -> bool:
    """Return whether cells to be filled lie in a window's inner part, which reaches to the canvas's own borders."""
    number, *start = place
    margin = side // MARGIN
    inner = [slice(at + (margin if at > 0 else 0), at + side - (margin if at + side < canvas else 0)) for at in start]
    return bool(wanted[number, inner[0], inner[1]].any())
