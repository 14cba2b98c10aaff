"""Finds photographs of one part on both sides of a split: they look alike in what is fine, whatever their exposure.

Every photograph is reduced to its pattern: small, without what is broad, each place divided by its own contrast. Two
patterns are compared as a correlation, the greatest over shifts of a few pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from model.types import ImageArray

SIDE, BROAD, REACH = 64, 4.0, 3
"""Side of a pattern, standard deviation of what counts as broad, and the largest shift, pixels of the pattern."""

ALIKE = 0.78
"""Correlation from which two photographs are taken to show one part. In Magnetic-Tile's first split by tile, the four
pairs of photographs that showed one tile all the same had 0.80 to 0.91, those of two tiles at most 0.76."""

SHOWN = 5

_Named = Sequence[tuple[str, ImageArray]]


def note_same_parts(train: _Named, test: _Named) -> list[str]:
    """Return a note on the photographs of both sides that look like one part, if there are any."""
    found = same_parts(train, test)
    if not found:
        return []
    shown = ", ".join(f"{one} and {other} ({alike:.2f})" for one, other, alike in found[:SHOWN])
    more = f" and {len(found) - SHOWN} more pairs" if len(found) > SHOWN else ""
    what = "look at them, and if so, move them to one side or leave one out"
    return [f"these look like one part that trains and tests: {shown}{more}; {what}"]


def same_parts(train: _Named, test: _Named) -> list[tuple[str, str, float]]:
    """Find pairs of photographs that look like one part, the likest first.

    Args:
        train, test: name and `(H, W, 3)` uint8 of each photograph.

    Returns:
        The name that trains, the name that tests, and their correlation.
    """
    if not train or not test:
        return []
    known = np.stack([_pattern(image) for _, image in train]).reshape(len(train), -1)
    asked = np.stack([_pattern(image) for _, image in test])
    likeness = np.full((len(train), len(test)), -1, np.float32)
    for down in range(-REACH, REACH + 1):
        for right in range(-REACH, REACH + 1):
            moved = np.roll(asked, (down, right), (1, 2)).reshape(len(test), -1)
            np.maximum(likeness, known @ moved.T, out=likeness)
    pairs = [
        (train[row][0], test[column][0], float(likeness[row, column]))
        for row, column in np.argwhere(likeness >= ALIKE).tolist()
    ]
    # As it is shown, so that rounding does not decide between pairs that are equally alike.
    return sorted(pairs, key=lambda pair: (-round(pair[2], 2), *pair[:2]))


def _pattern(image: ImageArray) -> NDArray[np.float32]:
    """Reduce a photograph to `(SIDE, SIDE)` of mean 0 and norm 1; zero for a plain one."""
    small = Image.fromarray(image).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    grey = np.asarray(small, np.float32)
    fine = grey - ndimage.gaussian_filter(grey, BROAD)
    # One grey level is added to the contrast, so that noise in plain places stays small.
    fine /= np.sqrt(ndimage.gaussian_filter(fine**2, BROAD)) + 1
    fine -= fine.mean()
    pattern: NDArray[np.float32] = fine / max(float(np.linalg.norm(fine)), 1e-6)
    return pattern
