"""Reads what a job says about places: outlines, and masks that were drawn for it."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from model.data.placement import NormalImage
from model.data.places import GivenMask, Places, Region, filled, named_normal
from model.types import MaskArray
from service.core import object_keys
from service.core.storage import ObjectStore
from worker.attempt.retry import retry

LISTS = ("placements", "allowed", "forbidden")


def read_drawn(
    objects: ObjectStore, job: str, asked: Mapping[str, Any], check: Callable[[], None]
) -> dict[str, MaskArray]:
    """Return `sha256:…` → mask, of the masks that were drawn for a job; empty if there are none."""
    if not any(place.get("mask") for name in LISTS for place in asked.get(name) or ()):
        return {}
    stored = json.loads(retry(lambda: objects.get(object_keys.places(job)), check))
    return {name: _mask(text) for name, text in stored["masks"].items()}


def places_of(asked: Mapping[str, Any], drawn: Mapping[str, MaskArray], normals: Sequence[NormalImage]) -> Places:
    """Return the places of a job; an outline for all good parts is filled at the size of each.

    Raises:
        UsageError: there is no good part of a name.
    """
    allowed, forbidden = (
        [region for place in asked.get(name) or () for region in _regions(place, drawn, normals)]
        for name in ("allowed", "forbidden")
    )
    used = Places(allowed=allowed).used(normals)
    placed = enumerate(asked.get("placements") or ())
    masks = [_placement(place, number, drawn, normals, used) for number, place in placed]
    return Places(masks, allowed, forbidden)


def _placement(
    place: Mapping[str, Any],
    number: int,
    drawn: Mapping[str, MaskArray],
    normals: Sequence[NormalImage],
    used: Sequence[NormalImage],
) -> GivenMask:
    name, wanted, defect = f"placements[{number}]", place.get("normal"), place.get("defect")  # like no photograph's
    if place.get("mask"):
        return GivenMask(name, drawn[place["mask"]], defect, named_normal(wanted, normals).name if wanted else None)
    normal = named_normal(wanted, normals) if wanted else used[number % len(used)]
    return GivenMask(name, filled(place["polygon"], normal), defect, normal.name)


def _regions(
    place: Mapping[str, Any], drawn: Mapping[str, MaskArray], normals: Sequence[NormalImage]
) -> Iterator[Region]:
    wanted = place.get("normal")
    if place.get("mask"):
        yield Region(drawn[place["mask"]], named_normal(wanted, normals).name if wanted else None)
        return
    for normal in [named_normal(wanted, normals)] if wanted else normals:
        yield Region(filled(place["polygon"], normal), normal.name)


def _mask(text: str) -> MaskArray:
    with Image.open(io.BytesIO(base64.b64decode(text)), formats=["PNG"]) as file:
        mask: MaskArray = np.asarray(file.convert("L")) > 127
        return mask
