"""Writes COCO instance segmentation, with run lengths and with polygons.

One instance per connected component. Polygons follow pixel edges, as COCO's rasteriser expects: both files decode to
the same masks. Paths of images are relative to the dataset's folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
from pycocotools import mask as coco_mask

from model.export.formats import Entry, StoredNormal, StoredPair
from model.export.names import label
from model.export.outlines import bounding_box, components, edge_ring
from model.types import MaskArray
from service.core.strict_json import to_json

CATEGORY = 1


class CocoLayout:
    """Writes `coco/instances_rle.json` and `coco/instances_polygons.json`, collected until the end."""

    def __init__(self, object_name: str, defect_name: str) -> None:
        self._category = {
            "id": CATEGORY,
            "name": label(defect_name, "defect"),
            "supercategory": label(object_name, "object"),
        }
        self._images: list[dict[str, Any]] = []
        # Kept as text, which takes a tenth of the memory of lists of numbers.
        self._rle: list[str] = []
        self._polygons: list[str] = []

    def pair(self, pair: StoredPair) -> Iterator[Entry]:
        """Add the image and one annotation per component."""
        image = self._add_image(pair.image_path, *pair.mask.shape)
        for component in components(pair.mask):
            shared = {
                "id": len(self._rle) + 1,
                "image_id": image,
                "category_id": CATEGORY,
                "bbox": bounding_box(component),
                "area": int(component.sum()),
                "iscrowd": 0,
            }
            self._rle.append(to_json(shared | {"segmentation": run_lengths(component)}))
            self._polygons.append(to_json(shared | {"segmentation": [edge_ring(component).ravel().tolist()]}))
        yield from ()

    def normal(self, normal: StoredNormal) -> Iterator[Entry]:
        """Add an image without annotations."""
        self._add_image(normal.image_path, normal.height, normal.width)
        yield from ()

    def close(self) -> Iterator[Entry]:
        """Yield both files."""
        yield "coco/instances_rle.json", self._file(self._rle)
        yield "coco/instances_polygons.json", self._file(self._polygons)

    def _add_image(self, path: str, height: int, width: int) -> int:
        number = len(self._images) + 1
        self._images.append({"id": number, "file_name": path, "height": height, "width": width})
        return number

    def _file(self, annotations: list[str]) -> bytes:
        head = {
            "info": {"description": "Generated image-mask pairs; the images are not photographs"},
            "licenses": [],
            "categories": [self._category],
            "images": self._images,
        }
        return f'{to_json(head)[:-1]}, "annotations": [{", ".join(annotations)}]}}\n'.encode("ascii")


def run_lengths(mask: MaskArray) -> dict[str, Any]:
    """Return COCO's compressed run lengths of an `(H, W)` bool mask, as JSON."""
    encoded = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(mask.shape), "counts": cast("bytes", encoded["counts"]).decode("ascii")}
