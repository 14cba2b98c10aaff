"""Keeps pictures of two levels so: scans of circuits and of print have black and white and nothing between.

A model that draws small, and an edge that fades, leave greys there. A person sees them at once, and so does a detector,
which then learns that defects are grey.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from model.types import ImageArray, MaskArray, Pair, is_grey

LEAST_APART = 64.0
"""Least distance of the two levels, grey levels."""

NEAR = 1 / 8
"""Distance from a level, as a share of that of the two, up to which a pixel has it; compression leaves as much."""

BETWEEN = 0.005
"""Largest share of pixels that may have neither. Pictures that were made smaller have more, along all edges."""

BETWEEN_IN_DEFECT = 0.1
"""The same within each defect, of which compression may blur more."""

LEAST_OF_EACH = 0.01
"""Least share of the pixels that have each level."""

RIM = 2
"""Width of the rim of a mask within which a defect may end, pixels."""

LEAST_DRAWN = 0.6
"""Least share of a mask in which a defect was drawn; with less of it, nothing tells where it should end."""


@dataclass(frozen=True, slots=True)
class TwoLevels:
    """The two grey levels of pictures."""

    dark: float
    bright: float

    def nearest(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Give each pixel of `(H, W, 3)` the level that its mean is nearer to."""
        bright = values.mean(axis=2, keepdims=True) > (self.dark + self.bright) / 2
        return np.broadcast_to(np.where(bright, np.float32(self.bright), np.float32(self.dark)), values.shape)

    def end_with_change(self, mask: MaskArray, image: ImageArray, good: ImageArray) -> MaskArray:
        """Return a mask, `(H, W)` bool, that ends where its defect does, if that is at most `RIM` pixels inside it.

        The model draws small, so that what it fills ends a pixel or two before its mask. Of black and white there is
        nothing between, and it can be seen where. What was not drawn farther from the defect stays in the mask, and so
        does all of one in which little was drawn: the checks are to see that.

        Args:
            mask: `(H, W)` bool.
            image, good: `(H, W, 3)` uint8, with the defect and without.
        """
        changed = mask & (self.nearest(image) != self.nearest(good)).any(axis=2)
        if changed.sum() < LEAST_DRAWN * mask.sum():
            return mask
        rim = mask & ~ndimage.binary_erosion(mask, iterations=RIM, border_value=1)
        return mask & ~(rim & ~changed & ndimage.binary_dilation(changed, iterations=RIM))


def find_two_levels(reals: Sequence[Pair]) -> TwoLevels | None:
    """Find the levels of real photographs, defects included; None where they have more than two, or colour.

    Args:
        reals: at least one.
    """
    if not all(is_grey(real.image) for real in reals):
        return None
    pixels = np.concatenate([real.image[..., 1].ravel() for real in reals])
    middle = (float(pixels.min()) + float(pixels.max())) / 2
    groups = pixels[pixels <= middle], pixels[pixels > middle]
    if min(len(group) for group in groups) < LEAST_OF_EACH * len(pixels):
        return None
    dark, bright = (float(np.median(group)) for group in groups)
    if bright - dark < LEAST_APART:
        return None
    near = NEAR * (bright - dark)

    def between(levels: NDArray[np.uint8]) -> float:
        return float(((levels > dark + near) & (levels < bright - near)).mean())

    defects = [real.image[..., 1][real.mask] for real in reals if real.mask.any()]
    greys = between(pixels) > BETWEEN or any(between(defect) > BETWEEN_IN_DEFECT for defect in defects)
    return None if greys else TwoLevels(dark, bright)
