"""Where a user wants defects: masks of their own, and regions that are allowed or forbidden."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from service.core.errors import UsageError
from service.core.options.combinations import PLACES, foreign_places, unused_with_masks
from service.core.options.learned import WHOLE, Box
from service.core.uploads.listing import base_name, counted
from service.core.uploads.names import image_of, plain_name, without_ending

MaskArray = NDArray[np.bool_]
"""`(H, W)`, True = defect."""

Corners = Sequence[tuple[float, float]]
"""Of an outline: x and y as shares of a photograph's width and height."""


class Photograph(Protocol):
    """What is known of a photograph of a good part."""

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> tuple[int, int]:
        """Height and width, pixels."""


_Photograph = TypeVar("_Photograph", bound=Photograph)

SMALLEST = 4
"""Least area of a mask, and of where one may lie, pixels."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What cannot be met of what a user says about places.

    Attributes:
        mask: number of the given mask that it is about; None where it is about regions.
    """

    text: str
    mask: int | None = None


@dataclass(frozen=True, slots=True)
class GivenMask:
    """A mask to fill, `(H, W)` bool, of the size of the photograph that it is meant for.

    Attributes:
        name: its own, for messages and the manifest.
        defect: the defect type that it is for; None for any.
        normal: name of the normal image to use, apart from the ending; None for one of the mask's own name if there is
            one, and otherwise any of its size.
        outline: that it was filled from, which fits photographs of all sizes; None for one that was drawn.
    """

    name: str
    mask: MaskArray
    defect: str | None = None
    normal: str | None = None
    outline: Corners | None = None

    def on(self, normal: Photograph) -> MaskArray:
        """Return it at the size of a photograph that it fits."""
        if self.outline is None or normal.shape == self.mask.shape:
            return self.mask
        return filled(self.outline, normal)


@dataclass(frozen=True, slots=True)
class Region:
    """A part of photographs, `(H, W)` bool.

    Attributes:
        normal: name of the normal image that it is a part of, apart from the ending; None for all, whose sizes it is
            stretched to.
    """

    mask: MaskArray
    normal: str | None = None

    def is_of(self, normal: Photograph) -> bool:
        """Return whether it is a part of a photograph."""
        return self.normal is None or _key(self.normal) == _key(normal.name)

    def stretched(self, shape: tuple[int, int]) -> MaskArray:
        """Return it at a photograph's size."""
        if self.mask.shape == shape:
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
        outlines = [each.outline for each in self.masks]
        meant = {"defects": [each.defect for each in self.masks], "normals": [each.normal for each in self.masks]}
        return {
            "masks": [[each.name, _hash(each.mask)] for each in self.masks],
            **({"outlines": outlines} if any(outlines) else {}),
            **{name: each for name, each in meant.items() if any(each)},
            **{
                kind: [[region.normal, _hash(region.mask)] for region in regions]
                for kind, regions in (("allowed", self.allowed), ("forbidden", self.forbidden))
            },
        }

    def used(self, normals: Sequence[_Photograph]) -> list[_Photograph]:
        """Return the photographs that defects may be put on."""
        if not self.allowed:
            return list(normals)
        return [normal for normal in normals if any(region.is_of(normal) for region in self.allowed)]

    def where(self, normal: Photograph, box: Box = WHOLE) -> MaskArray | None:
        """Return where defects may lie on a photograph, `(H, W)` bool; None for everywhere.

        Args:
            box: left, top, right and bottom of where they may lie, too, as shares of the photograph.
        """
        own = [region for region in self.allowed if region.is_of(normal)]
        barred = [region for region in self.forbidden if region.is_of(normal)]
        if not (own or barred) and box == WHOLE:
            return None
        shape = normal.shape
        found = np.zeros(shape, np.bool_)
        left, top, right, bottom = (np.array(box) * (shape[1], shape[0], shape[1], shape[0])).round().astype(int)
        found[top : max(bottom, top + 1), left : max(right, left + 1)] = True
        if own:
            found &= np.logical_or.reduce([region.stretched(shape) for region in own])
        for region in barred:
            found &= ~region.stretched(shape)
        return found

    def check(
        self, normals: Sequence[Photograph], types: Sequence[str] = (), box: Box = WHOLE, full: float = 1.0
    ) -> None:
        """Refuse what cannot be met.

        Args:
            types, box, full: as in `faults`.

        Raises:
            UsageError: naming each, and what would be right.
        """
        if faults := self.faults(normals, types, box, full):
            raise UsageError([fault.text for fault in faults], "The places cannot be used")

    def faults(
        self, normals: Sequence[Photograph], types: Sequence[str] = (), box: Box = WHOLE, full: float = 1.0
    ) -> list[Fault]:
        """Find what cannot be met: masks that fit no photograph, photographs without a place.

        Args:
            types: the defect types that the adapter learned.
            box: as in `where`.
            full: share of its photograph from which a mask is full for the checks (`QualityLimits.full_area`).
        """
        wrong = [Fault(text) for text in self._faulty_regions(normals)]
        wrong += [Fault(text, number) for number, text in self._faulty_masks(normals, types, full)]
        if wrong:
            return wrong
        where = {normal.name: self.where(normal, box) for normal in self.used(normals)}
        return self._misplaced(normals, where) if self.masks else self._placeless(where)

    def _faulty_masks(
        self, normals: Sequence[Photograph], types: Sequence[str], full: float
    ) -> Iterator[tuple[int, str]]:
        for number, given in enumerate(self.masks):
            fit = fitting(given, normals)
            if not fit and given.outline is None:
                height, width = given.mask.shape
                named = _of_its_name(given, normals)
                theirs = f"the normal of its name is {_sizes(named)}" if named else f"the normals are {_sizes(normals)}"
                yield number, f"{given.name} is {width} × {height} pixels, but {theirs}"
            shown = given.on(fit[0]) if fit else given.mask
            area, share = int(shown.sum()), float(shown.mean())
            if not area:
                yield number, f"{given.name} is empty: it must show in white where the defect is wanted"
            elif area < SMALLEST:
                yield (
                    number,
                    f"{given.name} shows {counted(area, 'pixel')}, too few for a defect: draw at least {SMALLEST}",
                )
            elif area == shown.size:
                yield number, f"{given.name} is all white: it must be black where no defect is wanted"
            elif share >= full:
                covers = f"{given.name} covers {share:.0%} of its photograph"
                yield number, f"{covers}, and from {full:.0%} the checks call a mask full (full_area): draw less"
            if given.defect is not None and given.defect not in types:
                yield number, f"{given.name} is for {given.defect}; the adapter knows {', '.join(types)}"

    def _faulty_regions(self, normals: Sequence[Photograph]) -> list[str]:
        problems = []
        for kind, regions in (("allowed", self.allowed), ("forbidden", self.forbidden)):
            for region in regions:
                own = [normal for normal in normals if region.is_of(normal)]
                height, width = region.mask.shape
                if region.normal is not None and not own:
                    known = normal_names(normals)
                    problems.append(f"the {kind} region {region.normal} is of no normal: there are {known}")
                elif region.normal is not None and own[0].shape != region.mask.shape:
                    size = _sizes(own)
                    problems.append(
                        f"the {kind} region of {own[0].name} is {width} × {height} pixels, the photograph {size}"
                    )
        return problems

    def _misplaced(self, normals: Sequence[Photograph], where: Mapping[str, MaskArray | None]) -> list[Fault]:
        """Find masks that lie where no defect may.

        Args:
            where: name of each photograph that is used → where defects may lie on it; None for everywhere.
        """
        faults = []
        for number, given in enumerate(self.masks):
            fit = self.used(fitting(given, normals))
            if not fit and (named := _of_its_name(given, normals)):
                allowed = f"what is allowed is of {normal_names(self.used(normals))} alone"
                faults.append(Fault(f"the mask {given.name} is for the normal {named[0].name}, but {allowed}", number))
                continue
            shares = [
                1.0 if (free := where[normal.name]) is None else float(free[given.on(normal)].mean()) for normal in fit
            ]
            if not shares or max(shares) < 1:
                share = 1 - max(shares, default=0.0)
                faults.append(Fault(f"{share:.0%} of the mask {given.name} lies where no defect may", number))
        return faults

    def _placeless(self, where: Mapping[str, MaskArray | None]) -> list[Fault]:
        """Find photographs without a place.

        Args:
            where: as for `_misplaced`.
        """
        empty = [name for name, free in where.items() if free is not None and free.sum() < SMALLEST]
        reason = f"the region, what is allowed and what is forbidden leave no place there, not even {SMALLEST} pixels"
        return [Fault(f"no defect may lie on {some_of(empty, 3)}: {reason}")] if empty else []


def fitting(given: GivenMask, normals: Sequence[_Photograph]) -> list[_Photograph]:
    """Return the photographs that a mask can be filled on: the one of its name if there is one, or all of its size.

    An outline fits all on which it is large enough.
    """
    meant = _of_its_name(given, normals) or normals
    if given.outline is None:
        return [normal for normal in meant if normal.shape == given.mask.shape]
    return [normal for normal in meant if given.on(normal).sum() >= SMALLEST]


def _of_its_name(given: GivenMask, normals: Sequence[_Photograph]) -> list[_Photograph]:
    name = given.name if given.normal is None else given.normal
    return [normal for normal in normals if _key(normal.name) == _key(name)]


def refuse_places(places: Places | None, method: str, options: Mapping[str, Any]) -> None:
    """Refuse what a user says about places and a method cannot follow, or not with these options.

    Raises:
        UsageError: naming each, and what would be right.
    """
    said = {} if places is None else dict(zip(PLACES, (places.masks, places.allowed, places.forbidden), strict=True))
    given = [name for name, parts in said.items() if parts]
    refused = foreign_places(method, given)
    if "placements" in given and not refused:
        refused = unused_with_masks(options)
    if refused:
        raise UsageError(list(dict.fromkeys(refused.values())))


def filled(corners: Corners, normal: Photograph) -> MaskArray:
    """Fill an outline on a photograph, `(H, W)` bool."""
    height, width = normal.shape
    canvas = Image.new("1", (width, height))
    ImageDraw.Draw(canvas).polygon([(x * (width - 1), y * (height - 1)) for x, y in corners], fill=1)
    return np.asarray(canvas)


def find_normal(name: str, normals: Sequence[_Photograph]) -> _Photograph | None:
    """Find a photograph by its name, apart from the ending, or by that of its mask, such as `007_mask`; None if none.

    Masks are named as those of pairs are, see `service.core.uploads.names`.
    """
    keys = {_key(normal.name): normal for normal in normals}
    key = image_of(_key(name), keys)
    return None if key is None else keys[key]


@lru_cache(maxsize=4096)
def _key(name: str) -> str:
    """Return what names of one photograph have in common, whatever their folder, ending, case and kind of signs."""
    return without_ending(plain_name(base_name(name)).casefold())


def named_normal(name: str, normals: Sequence[_Photograph]) -> _Photograph:
    """Find a photograph as `find_normal` does.

    Raises:
        UsageError: there is none.
    """
    if (found := find_normal(name, normals)) is None:
        raise UsageError(f"there is no normal {name}; there are {normal_names(normals)}")
    return found


def normal_names(normals: Sequence[Photograph]) -> str:
    """List photographs by their names, the first ones and the number of the others."""
    return some_of(sorted(without_ending(normal.name) for normal in normals))


def some_of(names: Sequence[str], most: int = 8, between: str = ", ") -> str:
    """Join names, or the first ones and the number of the others."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{between.join(names[:most])}{more}"


def _sizes(normals: Sequence[Photograph]) -> str:
    sizes = sorted({normal.shape[::-1] for normal in normals})
    return some_of([f"{width} × {height}" for width, height in sizes], 4)


def _hash(mask: MaskArray) -> str:
    return hashlib.sha256(repr(mask.shape).encode() + np.packbits(mask).tobytes()).hexdigest()
