"""Reads an adapter's stored input images: checked PNGs and the list of them."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from model.data.placement import NormalImage
from model.types import ImageArray, MaskArray, Pair
from service.core import object_keys
from service.core.errors import TransientError
from service.core.storage import ObjectStore
from worker.attempt.retry import retry


@dataclass(frozen=True, slots=True)
class Inputs:
    """The few-shot pairs and the normal images of an adapter."""

    pairs: list[Pair]
    normals: list[NormalImage]


def read_inputs(objects: ObjectStore, adapter: str, check: Callable[[], None]) -> Inputs:
    """Download and decode all inputs.

    Args:
        check: called between files; an error that it raises ends the reading.

    Raises:
        TransientError: if a file differs from what was stored.
    """
    listed = _listed(objects, adapter, check)
    pairs = [
        Pair(image["name"], _image(objects, image, check), _mask(objects, mask, check))
        for image, mask in zip(listed["images"], listed["masks"], strict=True)
    ]
    return Inputs(pairs, [NormalImage(each["name"], _image(objects, each, check)) for each in listed["normals"]])


def read_normals(objects: ObjectStore, adapter: str, check: Callable[[], None]) -> list[NormalImage]:
    """Download and decode the normal images alone."""
    listed = _listed(objects, adapter, check)
    return [NormalImage(each["name"], _image(objects, each, check)) for each in listed["normals"]]


def _listed(objects: ObjectStore, adapter: str, check: Callable[[], None]) -> dict[str, list[dict[str, Any]]]:
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
