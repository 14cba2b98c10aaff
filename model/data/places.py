"""Where a user wants defects: masks of their own, and regions that are allowed or forbidden."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from model.data.placement import NormalImage
from model.types import MaskArray
from service.core.errors import UsageError
from service.core.options.learned import WHOLE, Box
from service.core.options.methods import BOUNDED, PLACED


@dataclass(frozen=True, slots=True)
class GivenMask:
    """A mask to fill, `(H, W)` bool, of the size of the photograph that it is meant for.

    Attributes:
        name: its own, for messages and the manifest.
        defect: the defect type that it is for; None for any.
        normal: name of the normal image to use, apart from the ending; None for one of the mask's own name if there is
            one, and otherwise any of its size.
    """

    name: str
    mask: MaskArray
    defect: str | None = None
    normal: str | None = None


@dataclass(frozen=True, slots=True)
class Region:
    """A part of photographs, `(H, W)` bool.

    Attributes:
        normal: name of the normal image that it is a part of, apart from the ending; None for all, whose sizes it is
            stretched to.
    """

    mask: MaskArray
    normal: str | None = None

    def is_of(self, normal: NormalImage) -> bool:
        """Return whether it is a part of a photograph."""
        return self.normal is None or PurePath(self.normal).stem == PurePath(normal.name).stem

    def stretched(self, shape: tuple[int, ...]) -> MaskArray:
        """Return it at a photograph's size."""
        if self.mask.shape == shape[:2]:
            return self.mask
        return np.asarray(Image.fromarray(self.mask).resize((shape[1], shape[0]), Image.Resampling.NEAREST))


@dataclass(frozen=True, slots=True)
class Places:
    """What a user says about places, beside the options.

    Attributes:
        masks: to fill, each for as many pairs as the others; empty to have masks made.
        allowed: where defects may lie: in any of these. Photographs that none is a part of are not used. Empty for
            everywhere.
        forbidden: where they may not, even if it is allowed.
    """

    masks: Sequence[GivenMask] = ()
    allowed: Sequence[Region] = ()
    forbidden: Sequence[Region] = ()

    def __bool__(self) -> bool:
        """Return whether anything is said."""
        return bool(self.masks or self.allowed or self.forbidden)

    def identity(self) -> dict[str, Any]:
        """Return what is said as JSON, with hashes instead of pixels."""
        meant = {"defects": [each.defect for each in self.masks], "normals": [each.normal for each in self.masks]}
        return {
            "masks": [[each.name, _hash(each.mask)] for each in self.masks],
            **{name: each for name, each in meant.items() if any(each)},
            **{
                kind: [[region.normal, _hash(region.mask)] for region in regions]
                for kind, regions in (("allowed", self.allowed), ("forbidden", self.forbidden))
            },
        }

    def used(self, normals: Sequence[NormalImage]) -> list[NormalImage]:
        """Return the photographs that defects may be put on."""
        if not self.allowed:
            return list(normals)
        return [normal for normal in normals if any(region.is_of(normal) for region in self.allowed)]

    def where(self, normal: NormalImage, box: Box = WHOLE) -> MaskArray | None:
        """Return where defects may lie on a photograph, `(H, W)` bool; None for everywhere.

        Args:
            box: left, top, right and bottom of where they may lie, too, as shares of the photograph.
        """
        own = [region for region in self.allowed if region.is_of(normal)]
        barred = [region for region in self.forbidden if region.is_of(normal)]
        if not (own or barred) and box == WHOLE:
            return None
        shape = normal.image.shape
        found = np.zeros(shape[:2], np.bool_)
        left, top, right, bottom = (np.array(box) * (shape[1], shape[0], shape[1], shape[0])).round().astype(int)
        found[top : max(bottom, top + 1), left : max(right, left + 1)] = True
        if own:
            found &= np.logical_or.reduce([region.stretched(shape) for region in own])
        for region in barred:
            found &= ~region.stretched(shape)
        return found

    def check(self, normals: Sequence[NormalImage], types: Sequence[str] = (), box: Box = WHOLE) -> None:
        """Find what cannot be met: masks that fit no photograph, photographs without a place.

        Args:
            types: the defect types that the adapter learned.
            box: as in `where`.

        Raises:
            UsageError: naming each, and what would be right.
        """
        problems = [*self._faulty_regions(normals), *self._faulty_masks(normals, types)]
        if not problems:
            problems = self._unmet(normals, box)
        if problems:
            raise UsageError(problems, "The places cannot be used")

    def _faulty_masks(self, normals: Sequence[NormalImage], types: Sequence[str]) -> list[str]:
        problems = []
        for given in self.masks:
            if not fitting(given, normals):
                height, width = given.mask.shape
                named = _of_its_name(given, normals)
                theirs = f"the normal of its name is {_sizes(named)}" if named else f"the normals are {_sizes(normals)}"
                problems.append(f"{given.name} is {width} × {height} pixels, but {theirs}")
            if not given.mask.any():
                problems.append(f"{given.name} is empty: it must show in white where the defect is wanted")
            elif given.mask.all():
                problems.append(f"{given.name} is all white: it must be black where no defect is wanted")
            if given.defect is not None and given.defect not in types:
                problems.append(f"{given.name} is for {given.defect}; the adapter knows {', '.join(types)}")
        return problems

    def _faulty_regions(self, normals: Sequence[NormalImage]) -> list[str]:
        problems = []
        for kind, regions in (("allowed", self.allowed), ("forbidden", self.forbidden)):
            for region in regions:
                own = [normal for normal in normals if region.is_of(normal)]
                height, width = region.mask.shape
                if region.normal is not None and not own:
                    problems.append(f"the {kind} region {region.normal} is of no normal: there are {_names(normals)}")
                elif region.normal is not None and own[0].image.shape[:2] != region.mask.shape:
                    size = _sizes(own)
                    problems.append(
                        f"the {kind} region of {own[0].name} is {width} × {height} pixels, the photograph {size}"
                    )
        return problems

    def _unmet(self, normals: Sequence[NormalImage], box: Box) -> list[str]:
        """Find photographs without a place, and masks that lie where no defect may."""
        found = {normal.name: self.where(normal, box) for normal in self.used(normals)}
        problems = []
        if self.masks:
            for given in self.masks:
                fit = self.used(fitting(given, normals))
                if not fit and (named := _of_its_name(given, normals)):
                    allowed = f"what is allowed is of {_names(self.used(normals))} alone"
                    problems.append(f"the mask {given.name} is for the normal {named[0].name}, but {allowed}")
                    continue
                shares = [
                    1.0 if (where := found.get(normal.name)) is None else float(where[given.mask].mean())
                    for normal in fit
                ]
                if not shares or max(shares) < 1:
                    share = 1 - max(shares, default=0.0)
                    problems.append(f"{share:.0%} of the mask {given.name} lies where no defect may")
            return problems
        empty = [name for name, where in found.items() if where is not None and not where.any()]
        if empty:
            reason = "the region, what is allowed and what is forbidden leave no place there"
            problems.append(f"no defect may lie on {', '.join(empty[:3])}: {reason}")
        return problems


def fitting(given: GivenMask, normals: Sequence[NormalImage]) -> list[NormalImage]:
    """Return the photographs that a mask can be filled on: the one of its name if there is one, or all of its size."""
    meant = _of_its_name(given, normals) or normals
    return [normal for normal in meant if normal.image.shape[:2] == given.mask.shape]


def _of_its_name(given: GivenMask, normals: Sequence[NormalImage]) -> list[NormalImage]:
    name = given.name if given.normal is None else given.normal
    return [normal for normal in normals if PurePath(normal.name).stem == PurePath(name).stem]


def refuse_places(places: Places | None, method: str) -> None:
    """Refuse what a user says about places and a method cannot follow.

    Raises:
        UsageError: naming each, and the methods that can.
    """
    places = places or Places()
    problems = []
    if places.masks and method not in PLACED:
        problems.append(f"{method} finds masks on what it made: masks to fill are for {' and '.join(sorted(PLACED))}")
    if (places.allowed or places.forbidden) and method not in BOUNDED:
        problems.append(f"{method} chooses places by itself: regions are for {' and '.join(sorted(BOUNDED))}")
    if problems:
        raise UsageError(problems)


Corners = Sequence[tuple[float, float]]
"""Of an outline: x and y as shares of a photograph's width and height."""


def filled(corners: Corners, normal: NormalImage) -> MaskArray:
    """Fill an outline on a photograph, `(H, W)` bool."""
    height, width = normal.image.shape[:2]
    canvas = Image.new("1", (width, height))
    ImageDraw.Draw(canvas).polygon([(x * (width - 1), y * (height - 1)) for x, y in corners], fill=1)
    return np.asarray(canvas)


def named_normal(name: str, normals: Sequence[NormalImage]) -> NormalImage:
    """Find a photograph by its name, apart from the ending.

    Raises:
        UsageError: there is none.
    """
    for normal in normals:
        if PurePath(normal.name).stem == PurePath(name).stem:
            return normal
    raise UsageError(f"there is no normal {name}; there are {_names(normals)}")


def _names(normals: Sequence[NormalImage]) -> str:
    names = sorted(PurePath(normal.name).stem for normal in normals)
    return ", ".join([*names[:8], *(["…"] if len(names) > 8 else [])])


def _sizes(normals: Sequence[NormalImage]) -> str:
    sizes = sorted({normal.image.shape[1::-1] for normal in normals})
    return ", ".join(f"{width} × {height}" for width, height in sizes[:4])


def _hash(mask: MaskArray) -> str:
    return hashlib.sha256(repr(mask.shape).encode() + np.packbits(mask).tobytes()).hexdigest()
