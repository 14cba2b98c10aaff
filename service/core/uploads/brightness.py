"""Pictures of more than 8 bits per channel: one range of values for all of a data set becomes black to white.

Cameras store 10, 12 or 14 bits in 16, and detectors use a narrow band of them, so a file alone does not tell what its
white is. With a range per file, the same part would be dark in one picture and bright in the next.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from service.core.uploads.reading import Range
from service.core.uploads.tables import histogram, replaced

Deep = NDArray[np.uint16]
"""`(H, W)` or `(H, W, 3)`, 0–65535."""

_FEWEST_LEVELS = 64
"""Of the 256 that are left: where the pixels would use fewer, the band that they use is spread."""

_TOLD_LEVELS = 24
"""Fewer distinct levels in a picture are worth a warning."""

_RARE = 1e-4
"""Share of pixels at either end that must not keep a narrow band from being spread, such as hot pixels."""


def common_range(pictures: Iterable[Deep]) -> Range | None:
    """What should become black and white in all of these pictures; None where there are none."""
    counts = None
    for picture in pictures:
        own = histogram(picture, 1 << 16)
        counts = own if counts is None else counts + own
    if counts is None:
        return None
    (used,) = np.nonzero(counts)
    least, most = int(used[0]), int(used[-1])
    whole = 1 << next(bits for bits in (8, 10, 12, 14, 16) if most < 1 << bits)
    share = np.cumsum(counts) / counts.sum()
    low, high = (int(np.searchsorted(share, part)) for part in (_RARE, 1 - _RARE))
    if (high - low) * 256 >= _FEWEST_LEVELS * whole or whole == 256 or low == high:
        return 0, whole - 1
    margin = (high - low) // 4 + 1
    return max(least, low - margin), min(most, high + margin)


def scaled(values: Deep, span: Range) -> NDArray[np.uint8]:
    """The values as 0–255: of the range's equal parts, the lowest is 0 and the highest 255."""
    low, high = span
    places = (np.arange(1 << 16, dtype=np.int64) - low).clip(0, high - low)
    table = (places * 256 // (high - low + 1)).astype(np.uint8)
    return replaced(values, table)


def warnings_of(values: Deep, levels: NDArray[np.uint8], span: Range) -> list[str]:
    """What a picture lost by its range, one phrase each."""
    notes = []
    before, after = np.count_nonzero(histogram(values, 1 << 16)), np.count_nonzero(histogram(levels, 256))
    if after < _TOLD_LEVELS and before > after:
        notes.append(f"only {after} of its {before} levels remain: is it much darker or lighter than the others?")
    low, high = span
    if (lost := float(np.mean((values < low) | (values > high)))) > 0.01:
        notes.append(f"{lost:.0%} of it lie outside the brightness {low}:{high}")
    return notes
