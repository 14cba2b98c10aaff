"""What the levels of masks mean: a soft edge, ids of classes, or "ignore".

A file alone does not tell: of a data set in which some masks hold 0, 1 and 255, 255 is the border to ignore, also in a
mask that holds 0 and 255 only. So levels are read first, and the set of all values decides.
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
from service.core.uploads.tables import replaced

_IGNORE = (255, 65535)
_MOST_IDS = 32
"""Of more distinct levels, all are shades."""

_SMALL = 31
"""Up to here, levels are ids: shades of an edge reach further."""

_WHITE_NOISE = 247
_MID = range(32, 224)
"""Neither black nor white, whatever a codec did to them."""


@dataclass(frozen=True, slots=True)
class MaskLevels:
    """A mask before it is decided what counts.

    Attributes:
        codes: `(H, W)` uint8, the place of each pixel's value in `values`.
        values: in ascending order; a colour as `COLOUR` + its number.
        lossy: the file's format makes shades of its own.
        soft: the levels between are shades of an edge, rather than ids of areas.
        notes: what was converted, one phrase each.
    """

    codes: NDArray[np.uint8]
    values: tuple[int, ...]
    lossy: bool
    soft: bool
    notes: list[str]

    @property
    def ids(self) -> frozenset[int]:
        """What may be defect: all but the background."""
        return frozenset(self.values[1:] if len(self.values) == 2 else self.values) - {0}

    @property
    def coloured(self) -> bool:
        return self.values[-1] >= COLOUR

    def where(self, wanted: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The pixels whose value is wanted, one entry for each of `values`."""
        return replaced(self.codes, wanted)


@dataclass(frozen=True, slots=True)
class Meaning:
    """What counts in all masks of a set.

    Attributes:
        ignored: values that are neither defect nor background to their author; background to us.
        chosen: the user's choice of what is defect.
    """

    ignored: frozenset[int] = frozenset()
    chosen: frozenset[int] | None = None


def meaning_of(masks: Sequence[MaskLevels], chosen: frozenset[int] | None) -> Meaning:
    """What the values of all masks mean together.

    Raises:
        UsageError: they are several classes, of which none was chosen; or what was chosen occurs nowhere.
    """
    if chosen is not None:
        present = {value for mask in masks for value in mask.values}
        if masks and not any(mask.lossy for mask in masks) and not chosen & present:
            held = ", ".join(map(shown, sorted(present)[:12]))
            raise UsageError(f"mask values {_listed(chosen)} occur in no mask: they hold {held}")
        return Meaning(chosen=chosen)
    sets = [mask.ids for mask in masks if len(mask.values) > 1 and not mask.soft]
    ignored = frozenset(
        value
        for value in _IGNORE
        for ids in sets
        if value in ids and len(ids) > 1 and max(ids - {value}) <= (_SMALL if value == 255 else 255)
    )
    counts = Counter(value for ids in sets for value in ids - ignored)
    several = any(len(ids - ignored) > 1 for ids in sets)
    if several or len(counts.keys() - set(_IGNORE)) > 1:
        told = ", ".join(f"{shown(value)} (in {counts[value]} of {len(masks)})" for value in sorted(counts)[:12])
        first, every = shown(min(counts)), _listed(frozenset(counts))
        raise UsageError(
            f"the masks hold several classes: {told}, and one adapter learns one kind of defect; choose with "
            f"--mask-values {first} (form field mask_values), one adapter for each, or {every} to take them as one"
        )
    return Meaning(ignored)


def is_soft(codes: NDArray[np.uint8], values: tuple[int, ...], *, lossy: bool) -> bool:
    """Whether levels between the lowest and the highest are shades of an edge, rather than ids of areas."""
    if len(values) <= 2 or values[-1] >= COLOUR:
        return False
    if lossy or len(values) > _MOST_IDS:
        return True
    if max(values) >= _WHITE_NOISE and not any(_SMALL < value < _WHITE_NOISE for value in values):
        return any(_WHITE_NOISE <= value < 255 for value in values)
    if max(values) < 128:
        return False
    inner = (codes > 0) & (codes < len(values) - 1)
    return bool(_is_between(codes)[inner].mean() >= 0.5)


def _is_between(codes: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where something lower and something higher lies within two pixels."""
    image = Image.fromarray(codes)
    low, high = (np.asarray(image.filter(rank(5))) for rank in (ImageFilter.MinFilter, ImageFilter.MaxFilter))
    return (low < codes) & (codes < high)


def binary(mask: MaskLevels, meaning: Meaning, label: str) -> tuple[NDArray[np.bool_], list[str]]:
    """`(H, W)` bool, True = defect, and what was decided, one phrase each.

    Raises:
        UsageError: nothing of it is defect, or all; or it remains unclear.
    """
    found, notes = _decided(mask, meaning, label)
    if not found.any():
        if meaning != Meaning():
            raise UsageError(f"{label} has no defect: it holds {_listed(mask.ids) or '0'} only")
        raise UsageError(f"{label} is empty: the defect must be white (255) on black (0)")
    if found.all():
        raise UsageError(f"{label} is full: only the defect may be white (255), the rest must be black (0)")
    found, specks = _without_specks(found)
    if specks:
        notes.append(f"{specks} stray single pixel{'s' * (specks > 1)} left out")
    if found.mean() > 0.5:
        notes.append(f"white covers {found.mean():.0%} of it; if black is the defect, invert the mask")
    return found, notes


def _decided(mask: MaskLevels, meaning: Meaning, label: str) -> tuple[NDArray[np.bool_], list[str]]:
    values = np.array(mask.values)
    low, high = mask.values[0], mask.values[-1]
    if meaning.chosen is not None:
        reach = 16 if mask.lossy and not mask.coloured else 0
        wanted = (abs(values[:, None] - np.array(sorted(meaning.chosen))) <= reach).any(axis=1)
        return mask.where(wanted), [f"{_listed(meaning.chosen)} taken as defect, as chosen"]
    if len(values) == 1:
        return np.full(mask.codes.shape, low > 0), []
    if mask.soft:
        return _thresholded(mask, label)
    notes = []
    if ignored := meaning.ignored & mask.ids:
        notes.append(
            f"{_listed(ignored)} taken as border to ignore, not as defect (--mask-values, form field mask_values, "
            "changes it)"
        )
    wanted = np.isin(values, sorted(mask.ids - meaning.ignored))
    if len(values) == 2:
        if low > high / 2 or (mask.coloured and low):
            raise UsageError(
                f"{label} has the values {shown(low)} and {shown(high)} only: use 255 = defect and 0 = good"
            )
        if not mask.coloured and not ignored and not (low == 0 and high in {1, *_IGNORE}):
            notes.append(f"has the values {low} and {high}, {high} taken as defect")
    elif low > 0:
        raise UsageError(f"{label} has no background: 0 must be good; it holds {_listed(frozenset(mask.values))}")
    return mask.where(wanted), notes


def _thresholded(mask: MaskLevels, label: str) -> tuple[NDArray[np.bool_], list[str]]:
    low, high = mask.values[0], mask.values[-1]
    what = f"not binary (values {low}..{high}, {len(mask.values)} levels)"
    levels = np.array(mask.values)
    levels = levels >> 8 if high > 255 else levels
    if levels[-1] < 128:
        raise UsageError(f"{label} is {what}, so it is unclear which are the defect: use 255 = defect and 0 = good")
    notes = [f"{what}: thresholded at 128"]
    grey = mask.where((levels >= _MID.start) & (levels < _MID.stop))
    flat = _is_flat(replaced(mask.codes, levels.astype(np.uint8)))[grey].sum() if mask.lossy else 0
    if flat > max(16, 0.25 * grey.sum()):
        raise UsageError(
            f"{label} is {what} with whole areas of grey: classes cannot be told apart in a lossy format, save it as "
            "PNG, or choose with --mask-values (form field mask_values)"
        )
    if grey.mean() > 0.5:
        notes.append("most of it is neither black nor white: is it a photograph?")
    return mask.where(levels >= 128), notes


def _is_flat(levels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    image = Image.fromarray(levels)
    low, high = (np.asarray(image.filter(rank(3))) for rank in (ImageFilter.MinFilter, ImageFilter.MaxFilter))
    flat: NDArray[np.bool_] = high - low <= 10
    return flat


def _without_specks(mask: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], int]:
    """The mask without pixels that have no neighbour, and their number, where they are dust beside a defect."""
    padded = np.pad(mask, 1)
    height, width = mask.shape
    near = np.zeros_like(mask)
    for down in range(3):
        for right in range(3):
            if (down, right) != (1, 1):
                near |= padded[down : down + height, right : right + width]
    lone = mask & ~near
    count = int(lone.sum())
    return (mask & near, count) if 0 < count <= (mask.sum() - count) / 4 else (mask, 0)


def _listed(values: frozenset[int]) -> str:
    return ",".join(map(shown, sorted(values)))
