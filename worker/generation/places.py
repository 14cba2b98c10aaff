"""Reads the masks that were drawn for a job."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from service.core import object_keys
from service.core.asked_places import decoded_mask
from service.core.options.combinations import PLACES
from service.core.places import MaskArray
from service.core.storage import ObjectStore
from worker.attempt.retry import retry


def read_drawn(
    objects: ObjectStore, job: str, asked: Mapping[str, Any], check: Callable[[], None]
) -> dict[str, MaskArray]:
    """Return `sha256:…` → mask, of the masks that were drawn for a job; empty if there are none."""
    if not any(place.get("mask") for name in PLACES for place in asked.get(name) or ()):
        return {}
    stored = json.loads(retry(lambda: objects.get(object_keys.places(job)), check))
    return {name: decoded_mask(text) for name, text in stored["masks"].items()}
