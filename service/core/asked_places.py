"""Turns the lists of a job's request that say where defects go into places: outlines, and masks that were drawn."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from service.core.places import GivenMask, MaskArray, Photograph, Places, Region, filled, named_normal


def asked_places(asked: Mapping[str, Any], drawn: Mapping[str, MaskArray], normals: Sequence[Photograph]) -> Places:
    """Return the places of a job; a region for all good parts is filled at the size of each.

    An outline to draw a defect in, on any good part, is filled at the size of one, and fits all of that size. Where
    they have several sizes, outlines take turns over the good parts, those of the commonest size first.

    Args:
        drawn: `sha256:…` → mask, of those that the request refers to.

    Raises:
        UsageError: there is no good part of a name.
    """
    allowed, forbidden = (
        [region for place in asked.get(name) or () for region in _regions(place, drawn, normals)]
        for name in ("allowed", "forbidden")
    )
    used = Places(allowed=allowed).used(normals)
    common = Counter(normal.shape for normal in used)
    used.sort(key=lambda normal: -common[normal.shape])
    placed = enumerate(asked.get("placements") or ())
    masks = [_placement(place, number, drawn, normals, used) for number, place in placed]
    return Places(masks, allowed, forbidden)


def _placement(
    place: Mapping[str, Any],
    number: int,
    drawn: Mapping[str, MaskArray],
    normals: Sequence[Photograph],
    used: Sequence[Photograph],
) -> GivenMask:
    name, wanted, defect = f"placements[{number}]", place.get("normal"), place.get("defect")  # like no photograph's
    if place.get("mask"):
        return GivenMask(name, drawn[place["mask"]], defect, named_normal(wanted, normals).name if wanted else None)
    normal = named_normal(wanted, normals) if wanted else used[number % len(used)]
    return GivenMask(name, filled(place["polygon"], normal), defect, normal.name if wanted else None)


def _regions(
    place: Mapping[str, Any], drawn: Mapping[str, MaskArray], normals: Sequence[Photograph]
) -> Iterator[Region]:
    wanted = place.get("normal")
    if place.get("mask"):
        yield Region(drawn[place["mask"]], named_normal(wanted, normals).name if wanted else None)
        return
    for normal in [named_normal(wanted, normals)] if wanted else normals:
        yield Region(filled(place["polygon"], normal), normal.name)


def decoded_mask(text: str) -> MaskArray:
    """Decode a checked mask, base64 of a PNG of 0 and 255."""
    with Image.open(io.BytesIO(base64.b64decode(text)), formats=["PNG"]) as file:
        mask: MaskArray = np.asarray(file.convert("L")) > 127
        return mask
