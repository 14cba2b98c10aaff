"""Defines what every layout receives and returns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from model.types import MaskArray

Entry = tuple[str, bytes]
"""A file of the archive: path and content."""


@dataclass(frozen=True, slots=True)
class StoredPair:
    """A generated pair whose files are in the archive as `images/<stem>.png` and `masks/<stem>.png`.

    Attributes:
        number: position in the dataset, from 0.
        mask: `(H, W)` bool; the image has the same size.
        defect: number of its defect type among the layout's.
    """

    number: int
    stem: str
    image_png: bytes
    mask_png: bytes
    mask: MaskArray
    defect: int = 0

    @property
    def image_path(self) -> str:
        return f"images/{self.stem}.png"

    @property
    def mask_path(self) -> str:
        return f"masks/{self.stem}.png"


@dataclass(frozen=True, slots=True)
class StoredNormal:
    """A healthy image, in the archive as `normals/images/<stem>.png`; sizes in pixels."""

    number: int
    stem: str
    image_png: bytes
    height: int
    width: int

    @property
    def image_path(self) -> str:
        return f"normals/images/{self.stem}.png"


class Layout(Protocol):
    """Turns pairs, one by one, into the files of one format."""

    def pair(self, pair: StoredPair) -> Iterator[Entry]:
        """Yield the files of one pair."""

    def normal(self, normal: StoredNormal) -> Iterator[Entry]:
        """Yield the files of one healthy image."""

    def close(self) -> Iterator[Entry]:
        """Yield the files that describe the whole dataset; called once, at the end."""
