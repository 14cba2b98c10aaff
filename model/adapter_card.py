"""Reads and writes the card of an adapter: what was trained, by which method, on which base and data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from model.types import ImageArray, Pair
from service.core.errors import UsageError
from service.core.options.methods import METHOD_OPTIONS

FORMAT_VERSION = 1

CARD_ENTRIES = {"object", "defect", "base", "config", "steps", "loss_curve", "data", "greyscale", "placements"}
"""Entries that every card must have."""


def read_adapter_card(folder: Path) -> dict[str, Any]:
    """Read the card of an adapter folder.

    Raises:
        UsageError: if it is not an adapter, or has an unknown format version or method.
    """
    path = folder / "card.json"
    if not path.is_file():
        raise UsageError(f"{folder} is not an adapter: it has no card.json; make an adapter with `pairforge train`")
    try:
        card: Any = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(card, dict):
        raise UsageError(f"{path} is not the card of an adapter: it must contain a JSON object")
    if card.get("format_version") != FORMAT_VERSION or card.get("method") not in METHOD_OPTIONS:
        known = " or ".join(map(repr, METHOD_OPTIONS))
        raise UsageError(
            f"{folder} has format {card.get('format_version')} and method {card.get('method')!r}; "
            f"this version reads format {FORMAT_VERSION}, method {known}"
        )
    if lacking := sorted(CARD_ENTRIES - card.keys()):
        raise UsageError(f"{path} is incomplete: it lacks {', '.join(lacking)}")
    return card


def read_card_on(folder: Path, base: str, digest: str) -> dict[str, Any]:
    """Read the card of an adapter that is to be loaded onto a base.

    Args:
        base, digest: the base's name and the hash of its weights.

    Raises:
        UsageError: as `read_adapter_card`; or it was made on another base, or with options that there are no more.
    """
    card = read_adapter_card(folder)
    made_on = card["base"]
    if made_on["sha256"] != digest:
        raise UsageError(
            f"the adapter {folder} was trained on the base {made_on['name']!r} (sha256 {made_on['sha256'][:12]}…), "
            f"not on {base!r} (sha256 {digest[:12]}…): load it with its own base"
        )
    known = {field.name for field in fields(METHOD_OPTIONS[card["method"]].training)}
    if unknown := sorted(card["config"].keys() - known):
        raise UsageError(f"the adapter {folder} was trained with options unknown to this version: {', '.join(unknown)}")
    return card


def types_of(card: Mapping[str, Any]) -> list[str]:
    """Return the defect types that an adapter of this card learned, one or several."""
    return list(card.get("types") or [card["defect"]])


def describe_pair(pair: Pair) -> dict[str, Any]:
    """Describe a few-shot example for cards: its name, size, and the hashes of its pixels."""
    return {
        "name": pair.name,
        "width": pair.mask.shape[1],
        "height": pair.mask.shape[0],
        "image_sha256": image_hash(pair.image),
        "mask_sha256": hashlib.sha256(np.packbits(pair.mask).tobytes()).hexdigest(),
        "mask_area": int(pair.mask.sum()),
    }


def image_hash(image: ImageArray) -> str:
    """Compute the sha256 of an image's pixels."""
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()
