"""Where a user wants defects: masks of their own, and the region that is allowed."""

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


@dataclass(frozen=True, slots=True)
class GivenMask:
    """A mask to fill, `(H, W)` bool, of the size of the photograph that it is meant for.

    Attributes:
        name: its file's; a normal image of the same name, apart from the ending, is the photograph to use.
    """

    name: str
    mask: MaskArray


@dataclass(frozen=True, slots=True)
class Places:
    """What a user says about places, beside the options.

    Attributes:
        masks: pair `i` gets mask `i`, in turn; empty to have masks made.
        allowed: `(H, W)` bool, where defects may lie on every photograph; None for everywhere.
    """

    masks: Sequence[GivenMask] = ()
    allowed: MaskArray | None = None

    def __bool__(self) -> bool:
        """Return whether anything is said."""
        return bool(self.masks) or self.allowed is not None

    def identity(self) -> dict[str, Any]:
        """Return what is said as JSON, with hashes instead of pixels."""
        return {
            "masks": [[each.name, _hash(each.mask)] for each in self.masks],
            "allowed": None if self.allowed is None else _hash(self.allowed),
        }

    def allowed_in(self, shape: tuple[int, ...]) -> MaskArray | None:
        """Return the allowed region at a photograph's size."""
        if self.allowed is None or self.allowed.shape == shape[:2]:
            return self.allowed
        return np.asarray(Image.fromarray(self.allowed).resize((shape[1], shape[0]), Image.Resampling.NEAREST))

    def check(self, normals: Sequence[NormalImage]) -> None:
        """Find masks that fit no photograph.

        Raises:
            UsageError: naming each, and what would be right.
        """
        problems = []
        sizes = sorted({normal.image.shape[1::-1] for normal in normals})
        for given in self.masks:
            if not fitting(given, normals):
                shown = ", ".join(f"{width} × {height}" for width, height in sizes[:4])
                height, width = given.mask.shape
                problems.append(f"{given.name} is {width} × {height} pixels, but the normals are {shown}")
            if not given.mask.any():
                problems.append(f"{given.name} is empty: it must show in white where the defect is wanted")
            elif given.mask.all():
                problems.append(f"{given.name} is all white: it must be black where no defect is wanted")
        if self.allowed is not None and not self.allowed.any():
            problems.append("the allowed region is empty: white is where defects may lie")
        if problems:
            raise UsageError(problems, "The places cannot be used")


def outlined(
    polygons: Sequence[tuple[Sequence[tuple[float, float]], str | None]], normals: Sequence[NormalImage]
) -> Places:
    """Fill outlines on photographs.

    Args:
        polygons: corners, x and y as shares of width and height, and the photograph's name; None for one in turn.

    Raises:
        UsageError: there is no photograph of a name; names each.
    """
    by_stem = {PurePath(normal.name).stem: normal for normal in normals}
    names = [name for _, name in polygons if name is not None]
    if unknown := sorted({name for name in names if PurePath(name).stem not in by_stem}):
        raise UsageError(f"there is no normal {', '.join(unknown)}; there are {', '.join(sorted(by_stem)[:8])}")
    masks = []
    for number, (corners, name) in enumerate(polygons):
        normal = normals[number % len(normals)] if name is None else by_stem[PurePath(name).stem]
        height, width = normal.image.shape[:2]
        canvas = Image.new("1", (width, height))
        ImageDraw.Draw(canvas).polygon([(x * (width - 1), y * (height - 1)) for x, y in corners], fill=1)
        masks.append(GivenMask(normal.name, np.asarray(canvas)))
    return Places(tuple(masks))


def refuse_places(places: Places | None, method: str) -> None:
    """Refuse what a user says about places where a method chooses them by itself.

    Raises:
        UsageError: something is said.
    """
    if places:
        raise UsageError(
            f"{method} chooses places by itself: masks to fill, and an allowed region, are for anomalydiffusion"
        )


def fitting(given: GivenMask, normals: Sequence[NormalImage]) -> list[NormalImage]:
    """Return the photographs that a mask can be filled on: the one of its name, or all of its size."""
    same_size = [normal for normal in normals if normal.image.shape[:2] == given.mask.shape]
    named = [normal for normal in same_size if PurePath(normal.name).stem == PurePath(given.name).stem]
    return named or same_size


def _hash(mask: MaskArray) -> str:
    return hashlib.sha256(repr(mask.shape).encode() + np.packbits(mask).tobytes()).hexdigest()
