"""Scales pictures with more than 8 bits per channel to 8 bits, by one range of values for a whole data set.

Cameras store 10, 12 or 14 bits in 16, and detectors use a narrow band of them, so the white level of a single file is
unknown. With a range per file, the same part would be dark in one picture and bright in the next.
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
"""Of 256 levels: if the pixels would use fewer, the band that they use is stretched."""

_WARNED_LEVELS = 24
"""Fewer distinct levels in a picture cause a warning."""

_RARE = 1e-4
"""Share of pixels at either end, such as hot pixels, that does not prevent a narrow band from being stretched."""


def common_range(pictures: Iterable[Deep]) -> Range | None:
    """Choose the values that become black and white in all of these pictures; None if there are no pictures."""
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
    """Scale the values to 0–255 by dividing the range into 256 equal parts."""
    low, high = span
    places = (np.arange(1 << 16, dtype=np.int64) - low).clip(0, high - low)
    table = (places * 256 // (high - low + 1)).astype(np.uint8)
    return replaced(values, table)


def warnings_of(values: Deep, levels: NDArray[np.uint8], span: Range) -> list[str]:
    """Describe what a picture loses by the range, one phrase each."""
    notes = []
    before, after = np.count_nonzero(histogram(values, 1 << 16)), np.count_nonzero(histogram(levels, 256))
    if after < _WARNED_LEVELS and before > after:
        notes.append(f"only {after} of its {before} levels remain: is it much darker or brighter than the others?")
    low, high = span
    if (lost := float(np.mean((values < low) | (values > high)))) > 0.01:
        notes.append(f"{lost:.0%} of its pixels are outside the brightness range {low}:{high}")
    return notes
