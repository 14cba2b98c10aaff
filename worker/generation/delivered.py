"""Reads pairs back from the datasets that jobs have delivered."""

from __future__ import annotations

import io
import json
from typing import Any
from zipfile import ZipFile

import numpy as np
from PIL import Image

from model.types import Candidate, ImageArray, MaskArray


def manifest(dataset: ZipFile) -> list[dict[str, Any]]:
    """Return what the dataset says of each pair, in their order."""
    return [json.loads(line) for line in dataset.read("manifest.jsonl").splitlines()]


def delivered_pair(dataset: ZipFile, row: dict[str, Any], *, mask: MaskArray | None = None) -> Candidate:
    """Read one pair.

    Args:
        row: what the manifest says of it.
        mask: `(H, W)` bool, used instead of its own.
    """
    return Candidate(
        row["candidate"],
        row["seed"],
        decode_image(dataset.read(row["image"])),
        decode_mask(dataset.read(row["mask"])) if mask is None else mask,
        normal=row["normal"],
        window=tuple(row["window"]) if row["window"] else None,
        scores={name: score for name, score in row["scores"].items() if score is not None},
        review=row.get("review"),
        defect=row.get("defect"),
        given=row.get("given"),
    )


def decode_image(content: bytes) -> ImageArray:
    """Decode a PNG to `(H, W, 3)` uint8."""
    with Image.open(io.BytesIO(content), formats=["PNG"]) as file:
        return np.asarray(file.convert("RGB"))


def decode_mask(content: bytes) -> MaskArray:
    """Decode a PNG to `(H, W)` bool: what is brighter than mid-grey."""
    with Image.open(io.BytesIO(content), formats=["PNG"]) as file:
        mask: MaskArray = np.asarray(file.convert("L")) > 127
        return mask
