"""Turns the lists of a job's request that say where defects go into places: outlines, and masks that were drawn."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from service.core.places import GivenMask, MaskArray, Photograph, Places, Region, filled, named_normal


def asked_places(asked: Mapping[str, Any], drawn: Mapping[str, MaskArray], normals: Sequence[Photograph]) -> Places:
    """Return the places of a job; an outline for all good parts is filled at the size of each.

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
    normal, outline = named_normal(wanted, normals) if wanted else used[0], place["polygon"]
    return GivenMask(name, filled(outline, normal), defect, normal.name if wanted else None, outline)


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
