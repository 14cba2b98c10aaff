"""Writes YOLO segmentation labels, as Ultralytics reads them.

One line per connected component: `class x1 y1 x2 y2 …`, normalised by the image's size. The reader multiplies, cuts off
the fraction and fills the polygon with its border included. Vertices lie just inside the outer edges of border pixels:
what it fills at the image's own size is the mask, and rounding cannot move a vertex into another pixel.

In training it drops boxes that are at most 2 pixels wide or high after they were scaled, to half at the least, or 100
times longer than wide (`RandomPerspective.box_candidates`). So the boxes are as large as the defect, and around a thin
line half a pixel larger on each side: its outline has two tips without area, which add at most a pixel each.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from model.export.formats import Entry, StoredNormal, StoredPair
from model.export.names import label
from model.export.outlines import components, inner_ring
from model.types import MaskArray

CLASS = 0

_THIN = 4
"""Width in pixels up to which half of it may be too little for the trainer."""

_TIP = 0.49
"""Length of a tip in pixels."""


class YoloLayout:
    """Writes `labels/*.txt` beside `images/`, `normals/labels/*.txt` beside `normals/images/`, and `data.yaml`."""

    def __init__(self, defect_name: str) -> None:
        self._defect = label(defect_name, "defect")
        self._has_normals = False

    def pair(self, pair: StoredPair) -> Iterator[Entry]:
        """Yield the labels of one image."""
        yield f"labels/{pair.stem}.txt", label_lines(pair.mask).encode("ascii")

    def normal(self, normal: StoredNormal) -> Iterator[Entry]:
        """Yield an empty file, which means no defect; a missing file would mean unlabelled."""
        self._has_normals = True
        yield f"normals/labels/{normal.stem}.txt", b""

    def close(self) -> Iterator[Entry]:
        """Yield `data.yaml`, relative to its own folder. The reader requires `val`, which should be real images."""
        folders = ["images", "normals/images"] if self._has_normals else ["images"]
        data: dict[str, Any] = {"train": folders, "val": [*folders], "names": {CLASS: self._defect}}
        note = "# Replace `val` by real images: generated ones do not show how good a model is.\n"
        yield "data.yaml", (note + yaml.safe_dump(data, sort_keys=False)).encode("ascii")


def label_lines(mask: MaskArray) -> str:
    """Return one line per component of an `(H, W)` bool mask; empty for an empty mask."""
    return "".join(f"{CLASS} {_coordinates(component)}\n" for component in components(mask))


def _coordinates(component: MaskArray) -> str:
    height, width = component.shape
    ring = _with_tips(inner_ring(component), (width, height))
    return " ".join(f"{x / width:.6f} {y / height:.6f}" for x, y in ring)


def _with_tips(ring: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """Add tips to a thin ring, `(K, 2)` vertices `(x, y)`, at its extreme vertices; `size` is the image's."""
    for axis, most in enumerate(size):
        places = ring[:, axis]
        if np.ptp(places) > _THIN:
            continue
        for extreme, length in ((float(places.min()), -_TIP), (float(places.max()), _TIP)):
            at = int(np.flatnonzero(ring[:, axis] == extreme)[0])
            tip = ring[at].copy()
            tip[axis] = np.clip(extreme + length, 0, most)
            ring = np.insert(ring, at + 1, [tip, ring[at]], axis=0)
    return ring
