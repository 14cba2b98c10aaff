"""Finds what a job asks for that its adapter or its method does not have, or that does not go together."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from service.api.made_pairs import uploaded
from service.api.problems import Problem
from service.api.services import Services
from service.core.bases import announced
from service.core.options.combinations import (
    NO_MASK_NET,
    NOT_ANCHORED,
    NOT_REFINED,
    PLACES,
    UNLEARNED,
    foreign_places,
    is_anchored,
    no_mask,
    spread_evenly,
    unmasked,
    unused_starts,
    unused_with_learned_masks,
    unused_with_masks,
)
from service.core.options.declaration import chosen
from service.core.options.learned import WHOLE
from service.core.options.methods import DEFAULT_METHOD, METHOD_OPTIONS, refusals
from service.core.record import Record
from service.core.storage import MissingObject

MASK_NET_FILE = "mask_net.safetensors"
"""Of an adapter with a mask network."""

_NEED_NORMALS = frozenset(
    {"region", "allowed", "forbidden", "anchored", "strength", "sketch_strength", "part_guidance", "refine_strength"}
)
"""What DualAnoDiff can do on good parts alone."""


def types_of(adapter: Record) -> list[str]:
    """Return the defect types that an adapter learned."""
    return [each["name"] for each in adapter.request.get("defects", [])] or [adapter.request["defect"]]


def refused(services: Services, adapter: Record, asked: Mapping[str, Any]) -> dict[str, str]:
    """Return field → why it is refused, as far as that can be said before a worker loads the adapter.

    Args:
        asked: the request as JSON, null for what was not chosen.

    Raises:
        Problem: the adapter was deleted.
    """
    method, types = adapter.request.get("method", DEFAULT_METHOD), types_of(adapter)
    given = [name for name in PLACES if asked[name] is not None]
    found = refusals("sampling", method, asked) | foreign_places(method, given)
    if untypes := [name for name in asked["defects"] or () if name not in types]:
        found["defects"] = f"adapter {adapter.id} did not learn {', '.join(untypes)}; it knows {', '.join(types)}"
    if method == "anomalydiffusion":
        return _unfit_for_anomalydiffusion(adapter, asked, given) | found
    if method == "dualanodiff":
        return _unfit_for_dualanodiff(services, adapter, asked) | found
    return found


def unplaced(asked: Mapping[str, Any], types: Sequence[str]) -> list[str]:
    """Return the types that pairs are asked of, but that none of the placements is for.

    Args:
        types: the defect types that the adapter learned.
    """
    if not asked.get("placements"):
        return []
    wanted = asked["defects"]
    pairs = {name: wanted.get(name, 0) for name in types} if wanted else spread_evenly(types, asked["num_pairs"])
    return unmasked(pairs, [place.get("defect") for place in asked["placements"]])


def _unfit_for_anomalydiffusion(adapter: Record, asked: Mapping[str, Any], given: Collection[str]) -> dict[str, str]:
    found = unused_with_learned_masks(asked)
    trained = (adapter.result or {}).get("card", {}).get("config", {})
    if asked["mask_source"] == "learned" and trained.get("mask_generator_steps") == 0:
        found["mask_source"] = UNLEARNED
    if "placements" in given:
        found |= unused_with_masks(asked)
        if lacking := unplaced(asked, types_of(adapter)):
            others = [place["defect"] for place in asked["placements"] if place.get("defect")]
            found["placements"] = no_mask(lacking, others)
    return found


def _unfit_for_dualanodiff(services: Services, adapter: Record, asked: Mapping[str, Any]) -> dict[str, str]:
    found, result = {}, adapter.result or {}
    files = [file["path"] for file in result.get("files", ())]
    if asked["mask_method"] == "u2net" and files and MASK_NET_FILE not in files:
        found["mask_method"] = NO_MASK_NET
    if asked["refine_strength"] and result.get("card", {}).get("config", {}).get("bcm"):
        found["refine_strength"] = NOT_REFINED
    if not any(asked[name] for name in _NEED_NORMALS):
        return found
    try:
        has_normals = bool(uploaded(services.storage, adapter.id)["normals"])
    except MissingObject as error:
        raise Problem("adapter_not_found", f"adapter {adapter.id} was deleted") from error
    resolved = result.get("request") or adapter.request
    facts = announced(services.redis).get(resolved.get("base") or services.settings.base)
    recommended = METHOD_OPTIONS["dualanodiff"].recommended("sampling", facts.sampling if facts else {})
    options = chosen(asked)
    anchored = is_anchored(options, recommended, has_normals=has_normals)
    found |= unused_starts(options, anchored=anchored, has_normals=has_normals)
    if not anchored:
        bounding = [name for name in ("allowed", "forbidden") if asked[name] is not None]
        bounding += ["region"] if tuple(asked["region"] or WHOLE) != WHOLE else []
        found |= dict.fromkeys(bounding, NOT_ANCHORED)
    return found
