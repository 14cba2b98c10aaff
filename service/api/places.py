"""Places of a job's defects: checked against the adapter's good parts, drawn masks kept apart from the record."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from service.api.drawn_masks import drawn_mask
from service.api.problems import Problem, pointer, summary
from service.core.requests import JobRequest, RegionRequest

LISTS = ("placements", "allowed", "forbidden")
"""Fields of a job that say where."""


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
        Problem: names every good part and type that there is not, and every mask that does not fit.
    """
    checked, errors = CheckedPlaces(), list[dict[str, str]]()
    sizes = {PurePath(normal["name"]).stem: (normal["width"], normal["height"]) for normal in normals}
    for name in LISTS:
        given: Sequence[RegionRequest] | None = getattr(wanted, name)
        if given is None:
            continue
        checked.fields[name] = []
        for number, place in enumerate(given):
            shown = place.model_dump(mode="json", exclude_none=True)
            stem = None if place.normal is None else PurePath(place.normal).stem
            if stem is not None and stem not in sizes:
                known = ", ".join(sorted(sizes)[:8]) or "none"
                detail = f"the adapter has no normal {place.normal}: there are {known}"
                errors.append({"pointer": pointer(name, number, "normal"), "detail": detail})
            elif place.mask is not None:
                fitting = set(sizes.values()) if stem is None else {sizes[stem]}
                try:
                    mask = drawn_mask(place.mask, fitting, f"{name}/{number}")
                except ValueError as error:
                    errors.append({"pointer": pointer(name, number, "mask"), "detail": str(error)})
                else:
                    shown["mask"] = f"sha256:{hashlib.sha256(mask.encode()).hexdigest()}"
                    checked.masks[shown["mask"]] = mask
            if (defect := shown.get("defect")) is not None and defect not in types:
                detail = f"the adapter did not learn {defect}; it knows {', '.join(types)}"
                errors.append({"pointer": pointer(name, number, "defect"), "detail": detail})
            checked.fields[name].append(shown)
    if errors:
        raise Problem("invalid_request", summary([error["detail"] for error in errors]), errors=errors)
    return checked
