"""Measures how unlike the real defects a defect looks, by simple statistics of its pixels and its outline.

Every statistic compares the inside of the mask with a ring around it, so that exposure and surface matter little. How
much real defects of one kind differ is measured on the given ones; since these are few, their variance is mixed with
one that was measured on rendered defects (`SPREAD`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from model.data.crops import bounding_box
from model.types import ImageArray, MaskArray, Pair

Statistics = NDArray[np.float64]
"""`(F,)`, in the order of `SPREAD`: all of its statistics, or those that are judged."""

SPREAD: dict[str, float] = {
    "brightness": 0.34,
    "red": 0.46,
    "blue": 0.44,
    "fine texture": 0.33,
    "middle texture": 0.32,
    "coarse texture": 0.35,
    "fine to middle": 0.14,
    "middle to coarse": 0.18,
    "red grain": 0.09,
    "blue grain": 0.08,
    "white": 0.08,
    "black": 0.04,
    "emptiness of the box": 0.31,
    "outline to area": 0.46,
    "range": 0.61,
    "darkest": 0.38,
    "brightest": 0.34,
    "between two levels": 0.01,
}
"""Statistic → standard deviation within one type of defect, over 240 types of rendered ones (`python -m
bench.realism_spread` measures them again). Red and blue are multiples of `COLOUR`, white and black shares by which the
defect exceeds the ring, all others up to the last natural logarithms of ratios. The last is the share of middle levels
that the defect, without its rim, has beyond the ring, where the picture is of two levels, black and white."""

OF_SHAPE = frozenset(
    {
        *("fine texture", "middle texture", "coarse texture", "fine to middle", "middle to coarse"),
        *("red grain", "blue grain", "emptiness of the box", "outline to area"),
    }
)
"""Statistics that depend on the mask's shape: what changes fast across a thin stroke is the stroke itself."""

KNOWN = 4
"""Number of real defects that `SPREAD` counts as."""

COLOUR = 20.0
"""Grey levels of colour difference that count as 1."""

WHITE, BLACK = 250, 4
"""Grey levels from which, and up to which, a pixel counts as white and black."""

MIDDLE = (32, 223)
"""Grey levels between which a pixel is neither nearly black nor nearly white."""

TWO_LEVELS = 0.05
"""Share of the picture that must be nearly black, and as much nearly white, for a picture of two levels."""

BLURRED = 0.4
"""Share of a defect that may have middle levels between two, because small ones have soft edges."""

RING = (1.5, 7.0)
"""Distance from the mask of the ring's inner and outer border, pixels."""

SCALES = (0.7, 1.4, 2.8)
"""Standard deviations, in pixels, of the blurs whose differences are the three textures."""

MARGIN = 12


class Realism:
    """Knows the statistics of some real defects.

    Attributes:
        usual: the second largest unlikeness of a real defect to the others, 0 with one; the largest may be an odd one.

    Args:
        reals: at least one, masks not empty.
        judges_shape: whether the statistics that depend on the mask's shape count: not where the user gives the masks.
    """

    def __init__(self, reals: Sequence[Pair], *, judges_shape: bool = True) -> None:
        self._judged = [number for number, name in enumerate(SPREAD) if judges_shape or name not in OF_SHAPE]
        self._spread = np.array(list(SPREAD.values()))[self._judged]
        known = np.stack([self._statistics(real.image, real.mask) for real in reals])
        self._mean, self._deviation = self._fitted(known)
        others = (np.delete(known, number, axis=0) for number in range(len(known)))
        left_out = [_distance(one, *self._fitted(rest)) for one, rest in zip(known, others, strict=True) if len(rest)]
        self.usual = sorted(left_out)[-2] if left_out else 0.0

    def unlikeness(self, image: ImageArray, mask: MaskArray) -> float:
        """Return the distance from the real defects' mean, in standard deviations of the most unusual statistics.

        Args:
            image: `(H, W, 3)` uint8.
            mask: `(H, W)` bool, not empty.
        """
        return _distance(self._statistics(image, mask), self._mean, self._deviation)

    def _statistics(self, image: ImageArray, mask: MaskArray) -> Statistics:
        return statistics(image, mask)[self._judged]

    def _fitted(self, known: NDArray[np.float64]) -> tuple[Statistics, Statistics]:
        """Return the mean of `(n, F)` statistics, and the deviation of one more from it, mixed with `SPREAD`."""
        count = len(known)
        variance = (count * known.var(axis=0) + KNOWN * self._spread**2) / (count + KNOWN)
        # A new defect also differs from the mean because the mean of a few is not that of all.
        return known.mean(axis=0), np.sqrt(variance * (1 + 1 / count))


def _distance(one: Statistics, mean: Statistics, deviation: Statistics) -> float:
    """Return the 4-norm of the standardised difference: the largest ones decide, and several weigh more than one."""
    return float((np.square(np.square((one - mean) / deviation)).sum()) ** 0.25)


def statistics(image: ImageArray, mask: MaskArray) -> Statistics:
    """Describe a defect.

    Args:
        image: `(H, W, 3)` uint8.
        mask: `(H, W)` bool, not empty.
    """
    rows, columns = bounding_box(mask)
    pad = ((MARGIN, MARGIN), (MARGIN, MARGIN))
    place = slice(rows.start, rows.stop + 2 * MARGIN), slice(columns.start, columns.stop + 2 * MARGIN)
    pixels = np.pad(image, (*pad, (0, 0)), mode="symmetric")[place].astype(np.float32)
    photographed = np.pad(np.ones_like(mask), pad)[place]
    inside = np.pad(mask, pad)[place]
    distance = ndimage.distance_transform_edt(~inside)
    ring = (distance > RING[0]) & (distance <= RING[1]) & photographed
    if not ring.any():
        ring = ~inside
    grey = pixels.mean(axis=2)
    red, blue = pixels[..., 0] - pixels[..., 1], pixels[..., 2] - pixels[..., 1]
    blurred = [grey, *(ndimage.gaussian_filter(grey, scale) for scale in SCALES)]
    textures = [finer - coarser for finer, coarser in pairwise(blurred)]
    fine, middle, coarse = (_rms(texture, inside) for texture in textures)
    around = [_rms(texture, ring) for texture in textures]
    defect, surface = grey[inside], grey[ring]
    level = float(surface.mean())
    low, high = (float(np.percentile(defect, percent)) for percent in (10, 90))
    surface_low, surface_high = (float(np.percentile(surface, percent)) for percent in (10, 90))
    core = ndimage.binary_erosion(inside)
    outline = float((inside & ~core).sum())
    box = (rows.stop - rows.start) * (columns.stop - columns.start)
    return np.array(
        [
            _log_ratio(defect.mean(), level, 8),
            (red[inside].mean() - red[ring].mean()) / COLOUR,
            (blue[inside].mean() - blue[ring].mean()) / COLOUR,
            *(_log_ratio(one, other, 1.5) for one, other in zip((fine, middle, coarse), around, strict=True)),
            _log_ratio(fine, middle, 1),
            _log_ratio(middle, coarse, 1),
            *(_log_ratio(_rms(_grain(hue), inside), _rms(_grain(hue), ring), 6) for hue in (red, blue)),
            max(0.0, (defect >= WHITE).mean() - (surface >= WHITE).mean()),
            max(0.0, (defect <= BLACK).mean() - (surface <= BLACK).mean()),
            np.log(1 - mask.sum() / box + 0.05),
            np.log(outline**2 / (4 * np.pi * mask.sum())),
            _log_ratio(high - low, surface_high - surface_low, 6),
            _log_ratio(low, level, 8),
            _log_ratio(high, level, 8),
            _between(grey[core] if core.any() else defect, surface),
        ]
    )


def _between(defect: NDArray[np.float32], surface: NDArray[np.float32]) -> float:
    """Return the share of middle levels that a defect has beyond its surface; 0 unless these are of two levels."""
    dark, bright = MIDDLE
    everything = np.concatenate([defect, surface])
    rarer = min(float((everything <= dark).mean()), float((everything >= bright).mean()))
    inside, around = (float(((levels > dark) & (levels < bright)).mean()) for levels in (defect, surface))
    return min(1.0, rarer / TWO_LEVELS) * max(0.0, inside - around - BLURRED)


def _grain(hue: NDArray[np.float32]) -> NDArray[np.float32]:
    grain: NDArray[np.float32] = hue - ndimage.gaussian_filter(hue, SCALES[1])
    return grain


def _rms(values: NDArray[np.float32], where: MaskArray) -> float:
    return float(np.sqrt(np.square(values[where]).mean()))


def _log_ratio(one: float, other: float, floor: float) -> float:
    """Return log(one / other); values of about `floor` grey levels or less make little difference."""
    return float(np.log((one + floor) / (other + floor)))
