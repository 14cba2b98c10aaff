"""Writes YOLO segmentation labels, as Ultralytics reads them.

One line per connected component: `class x1 y1 x2 y2 …`, normalised by the image's size. The reader multiplies, cuts off
the fraction and fills the polygon with its border included. Vertices lie just inside the outer edges of border pixels:
what it fills at the image's own size is the mask, and rounding cannot move a vertex into another pixel. The boxes that
it takes around them are as large as the defect, so that thin lines are not dropped in training, where boxes of up to 2
pixels are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from model.export.formats import Entry, StoredNormal, StoredPair
from model.export.names import labels
from model.export.outlines import components, inner_ring
from model.types import MaskArray


class YoloLayout:
    """Writes `labels/*.txt` beside `images/`, `normals/labels/*.txt` beside `normals/images/`, and `data.yaml`."""

    def __init__(self, defects: Sequence[str]) -> None:
        self._names = dict(enumerate(labels(defects)))
        self._has_normals = False

    def pair(self, pair: StoredPair) -> Iterator[Entry]:
        """Yield the labels of one image."""
        yield f"labels/{pair.stem}.txt", label_lines(pair.mask, pair.defect).encode("ascii")

    def normal(self, normal: StoredNormal) -> Iterator[Entry]:
        """Yield an empty file, which means no defect; a missing file would mean unlabelled."""
        self._has_normals = True
        yield f"normals/labels/{normal.stem}.txt", b""

    def close(self) -> Iterator[Entry]:
        """Yield `data.yaml`, relative to its own folder. The reader requires `val`, which should be real images."""
        folders = ["images", "normals/images"] if self._has_normals else ["images"]
        data: dict[str, Any] = {"train": folders, "val": [*folders], "names": self._names}
        note = "# Replace `val` by real images: generated ones do not show how good a model is.\n"
        yield "data.yaml", (note + yaml.safe_dump(data, sort_keys=False)).encode("ascii")


def label_lines(mask: MaskArray, number: int = 0) -> str:
    """Return one line per component of an `(H, W)` bool mask of the class `number`; empty for an empty mask."""
    return "".join(f"{number} {_coordinates(component)}\n" for component in components(mask))


def _coordinates(component: MaskArray) -> str:
    height, width = component.shape
    return " ".join(f"{x / width:.6f} {y / height:.6f}" for x, y in inner_ring(component))
