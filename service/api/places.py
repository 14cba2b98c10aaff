"""Places of a job's defects: checked against the adapter's good parts, drawn masks kept apart from the record."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from service.api.drawn_masks import drawn_mask
from service.api.problems import Problem, pointer, summary
from service.core.asked_places import asked_places, decoded_mask
from service.core.options.combinations import PLACES
from service.core.options.declaration import chosen
from service.core.options.learned import WHOLE
from service.core.options.quality import QualityLimits
from service.core.places import find_normal, normal_names
from service.core.requests import JobRequest, RegionRequest

MOST_PIXELS = 128_000_000
"""Most pixels of masks and regions that are compared when a job is created, 1 byte each; of more, a worker tells."""

_COMPARING = threading.Lock()
"""Held while they are, so that many requests at once do not need as much memory each."""


@dataclass(frozen=True, slots=True)
class _GoodPart:
    """A photograph, of which only the size is known here."""

    name: str
    shape: tuple[int, int]


@dataclass(slots=True)
class CheckedPlaces:
    """Places as a record keeps them.

    Attributes:
        fields: the request's lists, as JSON, with `sha256:…` in place of masks.
        masks: that hash → base64 of a PNG of 0 and 255.
    """

    fields: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    masks: dict[str, str] = field(default_factory=dict)


def check_places(wanted: JobRequest, normals: Sequence[Mapping[str, Any]], types: Sequence[str]) -> CheckedPlaces:
    """Check what a job says about places.

    Args:
        normals: name, width and height of each good part of its adapter.
        types: the defect types that the adapter learned.

    Raises:
        Problem: names every good part and type that there is not, and every mask that does not fit; without such, what
            cannot be met together.
    """
    checked, errors = CheckedPlaces(), list[dict[str, str]]()
    parts = [_GoodPart(normal["name"], (normal["height"], normal["width"])) for normal in normals]
    for name in PLACES:
        given: Sequence[RegionRequest] | None = getattr(wanted, name)
        if given is not None:
            checked.fields[name] = []
        for number, place in enumerate(given or ()):
            for entry, detail in _add(checked, name, number, place, parts, types):
                errors.append({"pointer": pointer(name, number, entry), "detail": detail})
    if not errors:
        errors = list(_unmet(wanted, checked, parts, types))
    if errors:
        raise Problem("invalid_request", summary([error["detail"] for error in errors]), errors=errors)
    return checked


def _add(
    checked: CheckedPlaces,
    name: str,
    number: int,
    place: RegionRequest,
    parts: Sequence[_GoodPart],
    types: Sequence[str],
) -> Iterator[tuple[str, str]]:
    """Add one place; yields the fields of it that cannot be, and why."""
    shown = place.model_dump(mode="json", exclude_none=True)
    named = None if place.normal is None else find_normal(place.normal, parts)
    if place.normal is not None and named is None:
        known = normal_names(parts) or "none"
        yield "normal", f"the adapter has no normal {place.normal}: there are {known}"
    elif place.mask is not None:
        fitting = {part.shape[::-1] for part in (parts if named is None else [named])}
        try:
            mask = drawn_mask(place.mask, fitting, f"{name}/{number}")
        except ValueError as error:
            yield "mask", str(error)
        else:
            shown["mask"] = f"sha256:{hashlib.sha256(mask.encode()).hexdigest()}"
            checked.masks[shown["mask"]] = mask
    if (defect := shown.get("defect")) is not None and defect not in types:
        yield "defect", f"the adapter did not learn {defect}; it knows {', '.join(types)}"
    checked.fields[name].append(shown)


def _unmet(
    wanted: JobRequest, checked: CheckedPlaces, parts: Sequence[_GoodPart], types: Sequence[str]
) -> Iterator[dict[str, str]]:
    """Find what cannot be met of places that are right one by one; entries of a problem's `errors`."""
    if _pixels(checked, parts) > MOST_PIXELS:
        return
    regions = next((name for name in ("allowed", "forbidden") if name in checked.fields), "region")
    full = chosen(wanted.limits.model_dump()).get("full_area", QualityLimits().full_area)
    with _COMPARING:
        drawn = {name: decoded_mask(text) for name, text in checked.masks.items()}
        places = asked_places(checked.fields, drawn, parts)
        for fault in places.faults(parts, types, getattr(wanted, "region", None) or WHOLE, full):
            where = (regions,) if fault.mask is None else ("placements", fault.mask)
            yield {"pointer": pointer(*where), "detail": fault.text}


def _pixels(checked: CheckedPlaces, parts: Sequence[_GoodPart]) -> int:
    """Bound the pixels that are held to compare places."""
    areas = {part.name: part.shape[0] * part.shape[1] for part in parts}
    largest, every = max(areas.values(), default=0), sum(areas.values())
    regions = [place for name in ("allowed", "forbidden") for place in checked.fields.get(name, ())]
    for_all = sum("normal" not in place and "mask" not in place for place in regions)
    return largest * (len(checked.fields.get("placements", ())) + len(regions) - for_all) + every * (for_all + 1)
