"""Reads an adapter's stored input images: checked PNGs and the list of them."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from model.data.placement import NormalImage
from model.method import DefectType
from model.types import ImageArray, MaskArray, Pair
from service.core import object_keys
from service.core.errors import TransientError
from service.core.object_keys import HELD_OUT, TRAINING_UPLOADS, Upload
from service.core.storage import ObjectStore
from service.core.uploads.reading import Range
from worker.attempt.retry import retry


@dataclass(frozen=True, slots=True)
class Inputs:
    """Pairs and normal images of an adapter: those that it is trained on, or those that are held out.

    Attributes:
        defects: the defect type of each pair; empty where the upload named none.
        brightness: the values that became black and white in uploads with more than 8 bits; None if there were none.
    """

    pairs: list[Pair]
    normals: list[NormalImage]
    defects: list[str]
    brightness: Range | None

    def types(self, name: str) -> list[DefectType]:
        """Group the pairs by defect type, in the order of the types' names.

        Args:
            name: of the type of an upload that named none.
        """
        found: dict[str, list[Pair]] = {}
        for pair, defect in zip(self.pairs, self.defects, strict=True):
            found.setdefault(defect or name, []).append(pair)
        return [DefectType(each, pairs) for each, pairs in sorted(found.items())]


def read_inputs(objects: ObjectStore, adapter: str, check: Callable[[], None]) -> Inputs:
    """Download and decode all that an adapter is trained on.

    Args:
        check: called between files; an error that it raises ends the reading.

    Raises:
        TransientError: if a file differs from what was stored.
    """
    return _read(objects, _listed(objects, adapter, check), {kind: kind for kind in TRAINING_UPLOADS}, check)


def read_held_out(objects: ObjectStore, adapter: str, check: Callable[[], None]) -> Inputs:
    """Download and decode the held-out images; adapters of earlier versions have none.

    Raises:
        TransientError: if a file differs from what was stored.
    """
    return _read(objects, _listed(objects, adapter, check), HELD_OUT, check)


def read_normals(objects: ObjectStore, adapter: str, check: Callable[[], None]) -> list[NormalImage]:
    """Download and decode the normal images alone."""
    listed = _listed(objects, adapter, check)
    return [NormalImage(each["name"], _image(objects, each, check)) for each in listed["normals"]]


def _read(
    objects: ObjectStore,
    listed: dict[str, Any],
    kinds: Mapping[Upload, Upload],
    check: Callable[[], None],
) -> Inputs:
    """Read pairs and normal images; `kinds` says which uploads serve as them."""
    images, masks, normals = (listed.get(kinds[use], []) for use in (Upload.IMAGES, Upload.MASKS, Upload.NORMALS))
    pairs = [
        Pair(image["name"], _image(objects, image, check), _mask(objects, mask, check))
        for image, mask in zip(images, masks, strict=True)
    ]
    good = [NormalImage(each["name"], _image(objects, each, check)) for each in normals]
    # Uploads to earlier versions do not say.
    low_high = listed.get("brightness")
    span = (low_high[0], low_high[1]) if low_high else None
    return Inputs(pairs, good, [image.get("defect", "") for image in images], span)


def _listed(objects: ObjectStore, adapter: str, check: Callable[[], None]) -> dict[str, Any]:
    return dict(json.loads(retry(lambda: objects.get(object_keys.inputs(adapter)), check)))


def _content(objects: ObjectStore, entry: dict[str, Any], check: Callable[[], None]) -> io.BytesIO:
    check()

    def whole() -> bytes:
        content = objects.get(entry["key"])
        if hashlib.sha256(content).hexdigest() != entry["sha256"]:
            raise TransientError(f"{entry['key']} is damaged: its SHA-256 is not the recorded one")
        return content

    return io.BytesIO(retry(whole, check))


def _image(objects: ObjectStore, entry: dict[str, Any], check: Callable[[], None]) -> ImageArray:
    with Image.open(_content(objects, entry, check), formats=["PNG"]) as file:
        return np.asarray(file.convert("RGB"))


def _mask(objects: ObjectStore, entry: dict[str, Any], check: Callable[[], None]) -> MaskArray:
    with Image.open(_content(objects, entry, check), formats=["PNG"]) as file:
        mask: MaskArray = np.asarray(file.convert("L")) > 127
        return mask
