"""Decides what the levels of masks mean: a soft edge, ids of classes, or "ignore".

A single file does not suffice: if some masks of a data set contain 0, 1 and 255, then 255 is the border to ignore, also
in a mask that contains only 0 and 255. So all masks are read first, and the set of all values decides.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from service.core.errors import UsageError
from service.core.uploads.reading import COLOUR, shown
from service.core.uploads.specks import without_specks
from service.core.uploads.tables import replaced

_IGNORE = (255, 65535)
_MOST_IDS = 32
"""More distinct levels than these are shades of an edge."""

_SMALL = 31
"""Levels up to this one are ids, because shades of an edge reach further."""

_WHITE_NOISE = 247
_FEW_SHADES = 4

_BORDER_SHARE = 0.02
"""A border to ignore surrounds ids: all ids together have at least this share of the border's pixels."""

_MID = range(32, 224)
"""Levels that are neither black nor white, even after lossy compression."""


class UnclearMaskError(UsageError):
    """A mask's values do not say which are the defect, or none is by the chosen ones: another choice would help."""


@dataclass(frozen=True, slots=True)
class MaskLevels:
    """A mask before its defect is decided.

    Attributes:
        codes: `(H, W)` uint8, the index of each pixel's value in `values`.
        values: the values in ascending order; a colour is `COLOUR` + its number.
        counts: the number of pixels of each value.
        lossy: the file's format adds shades.
        soft: the levels between lowest and highest are shades of an edge and not ids.
        notes: conversions, one phrase each.
    """

    codes: NDArray[np.uint8]
    values: tuple[int, ...]
    counts: tuple[int, ...]
    lossy: bool
    soft: bool
    notes: list[str]

    @property
    def ids(self) -> frozenset[int]:
        """The values that may be defect: all except the background."""
        return frozenset(self.values[1:] if len(self.values) == 2 else self.values) - {0}

    @property
    def coloured(self) -> bool:
        return self.values[-1] >= COLOUR

    def where(self, wanted: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Select the pixels whose value is wanted; `wanted` has one entry per value."""
        return replaced(self.codes, wanted)


@dataclass(frozen=True, slots=True)
class Meaning:
    """The meaning of the values in all masks of a set.

    Attributes:
        ignored: values that are neither defect nor background, which are treated as background.
        chosen: values that the user chose as defect.
    """

    ignored: frozenset[int] = frozenset()
    chosen: frozenset[int] | None = None


def meaning_of(masks: Sequence[MaskLevels], chosen: frozenset[int] | None) -> Meaning:
    """Decide what the values of all masks together mean.

    Raises:
        UnclearMaskError: there are several classes and none was chosen.
        UsageError: the chosen values occur nowhere.
    """
    if chosen is not None:
        present = {value for mask in masks for value in mask.values}
        if masks and not any(mask.lossy for mask in masks) and not chosen & present:
            held = ", ".join(map(shown, sorted(present)[:12]))
            raise UsageError(f"mask values {_listed(chosen)} occur in no mask: the masks contain {held}")
        return Meaning(chosen=chosen)
    exact = [mask for mask in masks if len(mask.values) > 1 and not mask.soft]
    ignored = frozenset(value for value in _IGNORE if _is_border(value, exact))
    counts = Counter(value for mask in exact for value in mask.ids - ignored)
    several = any(len(mask.ids - ignored) > 1 for mask in exact)
    if several or len(counts.keys() - set(_IGNORE)) > 1:
        classes = ", ".join(f"{shown(value)} (in {counts[value]} of {len(masks)})" for value in sorted(counts)[:12])
        border = f", beside {_listed(ignored)} as a border" if ignored else ""
        first, every = shown(min(counts)), _listed(frozenset(counts))
        raise UnclearMaskError(
            f"the masks contain several classes: {classes}{border}, but an adapter learns only one kind of defect; "
            f"choose one with --mask-values {first} (form field mask_values), or give {every} to treat them as one"
        )
    return Meaning(ignored)


def _is_border(value: int, masks: Sequence[MaskLevels]) -> bool:
    """Whether a value is a border to ignore: the highest beside small ids, which are no mere dust."""
    highest_id = _SMALL if value == 255 else 255
    beside = [
        mask for mask in masks if mask.values[-1] == value and len(mask.ids) > 1 and mask.values[-2] <= highest_id
    ]
    ids = sum(
        count for mask in beside for level, count in zip(mask.values, mask.counts, strict=True) if 0 < level < value
    )
    return ids > _BORDER_SHARE * sum(mask.counts[-1] for mask in beside)


def is_soft(codes: NDArray[np.uint8], values: tuple[int, ...], *, lossy: bool) -> bool:
    """Whether the levels between lowest and highest are shades of an edge and not ids of classes."""
    dark = values[-1] < 128
    if values[-1] >= COLOUR or len(values) == 1 or (len(values) == 2 and not (lossy and dark)):
        return False
    if lossy or len(values) > _MOST_IDS:
        return True
    if max(values) >= _WHITE_NOISE and not any(_SMALL < value < _WHITE_NOISE for value in values):
        return sum(_WHITE_NOISE <= value <= 255 for value in values) > 1
    if dark:
        return False
    inner = (codes > 0) & (codes < len(values) - 1)
    # A wide edge has many levels: a wide band of only one or two is a class.
    reach = 3 if len(values) <= _FEW_SHADES else 5
    return bool(_is_between(codes, reach)[inner].mean() >= 0.5)


def _is_between(codes: NDArray[np.uint8], window: int) -> NDArray[np.bool_]:
    """Find the pixels with a lower and a higher level in the window of this size around them."""
    image = Image.fromarray(codes)
    low, high = (np.asarray(image.filter(rank(window))) for rank in (ImageFilter.MinFilter, ImageFilter.MaxFilter))
    return (low < codes) & (codes < high)


def binary(mask: MaskLevels, meaning: Meaning, label: str) -> tuple[NDArray[np.bool_], list[str]]:
    """Decide which pixels are the defect; returns `(H, W)` bool, and one phrase per decision.

    Raises:
        UnclearMaskError: the values do not say which are the defect, or none is by the values that were chosen.
        UsageError: no pixel or every pixel is defect.
    """
    found, notes = _decided(mask, meaning, label)
    if not found.any():
        if meaning != Meaning():
            border = ", a border to ignore" if mask.ids and mask.ids <= meaning.ignored else ""
            raise UnclearMaskError(
                f"{label} has no defect: it contains only {_listed(mask.ids) or '0'}{border} (--mask-values, form "
                "field mask_values, chooses what is the defect)"
            )
        raise UsageError(f"{label} is empty: the defect must be white (255) on black (0)")
    if found.all():
        raise UsageError(f"{label} is full: only the defect may be white (255), the rest must be black (0)")
    found, stray = without_specks(found)
    if stray:
        notes.append(f"{stray} stray pixel{'s' * (stray > 1)} beside the defect removed")
    if found.mean() > 0.5:
        notes.append(f"white covers {found.mean():.0%} of it; if black is the defect, invert the mask")
    return found, notes


def _decided(mask: MaskLevels, meaning: Meaning, label: str) -> tuple[NDArray[np.bool_], list[str]]:
    values = np.array(mask.values)
    low, high = mask.values[0], mask.values[-1]
    if meaning.chosen is not None:
        reach = 16 if mask.lossy and not mask.coloured else 0
        wanted = (abs(values[:, None] - np.array(sorted(meaning.chosen))) <= reach).any(axis=1)
        return mask.where(wanted), [f"{_listed(meaning.chosen)} used as defect"]
    if len(values) == 1:
        return np.full(mask.codes.shape, low > 0), []
    if mask.soft:
        return _thresholded(mask, label)
    notes = []
    if ignored := meaning.ignored & mask.ids:
        defect = _listed(mask.ids - ignored) or "nothing"
        notes.append(
            f"{defect} used as defect, {_listed(ignored)} ignored as a border, not used as defect (--mask-values, form "
            "field mask_values, changes this)"
        )
    wanted = np.isin(values, sorted(mask.ids - meaning.ignored))
    if len(values) == 2:
        if low > high / 2 or (mask.coloured and low):
            raise UnclearMaskError(
                f"{label} has only the values {shown(low)} and {shown(high)}: use 255 = defect and 0 = good, "
                f"or choose with --mask-values {shown(low)} or {shown(high)} (form field mask_values)"
            )
        if not mask.coloured and not ignored and not (low == 0 and high in {1, *_IGNORE}):
            notes.append(f"has the values {low} and {high}, {high} used as defect")
    elif low > 0:
        raise UnclearMaskError(
            f"{label} has no background: 0 must be good, or choose the defect with --mask-values (form field "
            f"mask_values); it contains {_listed(frozenset(mask.values))}"
        )
    return mask.where(wanted), notes


def _thresholded(mask: MaskLevels, label: str) -> tuple[NDArray[np.bool_], list[str]]:
    low, high = mask.values[0], mask.values[-1]
    what = f"not binary (values {low}..{high}, {len(mask.values)} levels)"
    levels = np.array(mask.values)
    levels = levels >> 8 if high > 255 else levels
    if levels[-1] < 128:
        raise UsageError(f"{label} is {what}, so it is unclear which are defect: use 255 = defect and 0 = good")
    notes = [f"{what}: thresholded at 128"]
    grey = mask.where((levels >= _MID.start) & (levels < _MID.stop))
    flat = _is_flat(replaced(mask.codes, levels.astype(np.uint8)))[grey].sum() if mask.lossy else 0
    if flat > max(16, 0.25 * grey.sum()):
        raise UnclearMaskError(
            f"{label} is {what} with whole areas of grey: classes cannot be distinguished in a lossy format; save it "
            "as PNG, or choose values with --mask-values (form field mask_values)"
        )
    if grey.mean() > 0.5:
        notes.append("most of it is neither black nor white: is it a photograph?")
    return mask.where(levels >= 128), notes


def _is_flat(levels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    image = Image.fromarray(levels)
    low, high = (np.asarray(image.filter(rank(3))) for rank in (ImageFilter.MinFilter, ImageFilter.MaxFilter))
    flat: NDArray[np.bool_] = high - low <= 10
    return flat


def _listed(values: frozenset[int]) -> str:
    return ",".join(map(shown, sorted(values)))
