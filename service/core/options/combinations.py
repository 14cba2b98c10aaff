"""What a request cannot ask for at the same time, for the library and the API alike."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from service.core.options.anomalydiffusion import AnomalySamplingConfig
from service.core.options.methods import BOUNDED, PLACED
from service.core.options.presets import sampling_preset
from service.core.uploads.problems import enumerated

PLACES = ("placements", "allowed", "forbidden")
"""What a request says about places beside its options: masks to fill, and where defects may and may not lie."""

OF_CHOSEN_MASKS = {
    "sizes": "changes masks that are chosen, and these are given: leave it out",
    "angles": "changes masks that are chosen, and these are given: leave it out",
    "anywhere": "chooses places, and these come with the masks that are given: leave it out",
    "defects_per_picture": "counts masks that are chosen, and these are given: draw several defects in one of them",
    "mask_source": "says where masks come from, and these are given: leave it out",
}
"""Option of AnomalyDiffusion → why it means nothing where the masks are given."""

UNLEARNED = "the adapter did not learn to draw masks: use mask_source real, or train with mask_generator_steps"

NO_MASK_NET = "mask method u2net needs a mask network, but the adapter has none: use threshold or attention"

NOT_REFINED = "refine_strength is for adapters without bcm, whose backgrounds need whole windows: leave it out"

NOT_ANCHORED = "regions are parts of normal images, but pairs are not generated on them: turn anchored on"

_USUAL = AnomalySamplingConfig()


def foreign_places(method: str, names: Collection[str]) -> dict[str, str]:
    """Return name → why a method cannot follow it.

    Args:
        names: those of `PLACES` that are given.
    """
    refused = {}
    if "placements" in names and method not in PLACED:
        reason = "finds masks on what it made" if method in BOUNDED else "chooses places by itself"
        refused["placements"] = f"{method} {reason}: masks to fill are for {' and '.join(sorted(PLACED))}"
    for name in names if method not in BOUNDED else ():
        if name != "placements":
            refused[name] = f"{method} chooses places by itself: regions are for {' and '.join(sorted(BOUNDED))}"
    return refused


def unused_with_masks(options: Mapping[str, Any]) -> dict[str, str]:
    """Return the options of AnomalyDiffusion that mean nothing where masks are given → why.

    Args:
        options: option → value; None means not chosen. What is the default is no wish.
    """
    return {name: f"{name} {why}" for name, why in OF_CHOSEN_MASKS.items() if _is_wish(name, options.get(name))}


def unused_with_learned_masks(options: Mapping[str, Any]) -> dict[str, str]:
    """Return the options of AnomalyDiffusion that mean nothing where a network draws the masks → why.

    Args:
        options: as for `unused_with_masks`.
    """
    if options.get("mask_source") != "learned" or not _is_wish("angles", options.get("angles")):
        return {}
    return {"angles": "angles turns real masks, and learned ones are drawn as they lie: leave it out"}


def _is_wish(name: str, value: Any) -> bool:
    usual = getattr(_USUAL, name)
    return value is not None and (tuple(value) if isinstance(usual, tuple) else value) != usual


def is_anchored(options: Mapping[str, Any], recommended: Mapping[str, Any], *, has_normals: bool) -> bool:
    """Return whether DualAnoDiff generates on normal images.

    Args:
        options: that were chosen.
        recommended: by the base.
    """
    advised = {**recommended, **sampling_preset(options.get("preset", "base"), bcm=False)}
    return bool(options.get("anchored", advised.get("anchored", has_normals)))


def unused_starts(options: Mapping[str, Any], *, anchored: bool, has_normals: bool) -> dict[str, str]:
    """Return the options of DualAnoDiff that need normals to generate on, or exclude each other → why.

    Args:
        options: that were chosen.
        anchored: whether pairs are generated on normal images.
    """
    refused = {
        name: f"{name} is {options[name]}, but anchored sampling, on normal images, is off: turn it on, or leave "
        f"{name} out"
        for name in ("strength", "sketch_strength", "part_guidance", "refine_strength")
        if options.get(name) and not anchored
    }
    if anchored and options.get("strength") and options.get("sketch_strength"):
        why = "strength and sketch_strength exclude each other, since both set where sampling starts: choose one"
        refused["sketch_strength"] = why
    if anchored and options.get("part_guidance") and options.get("sketch_strength"):
        why = "part_guidance and sketch_strength exclude each other, since a sketch has its own part: choose one"
        refused["part_guidance"] = why
    if anchored and not has_normals:
        why = "anchored sampling needs normal images, but none were given: provide some, or turn anchored off"
        refused["anchored"] = why
    return refused


def unmasked(pairs: Mapping[str, int], masks: Sequence[str | None]) -> list[str]:
    """Return the types that pairs are wanted of, but that no given mask is for.

    None are returned where a mask is for a type that does not exist, which is the mistake then.

    Args:
        pairs: defect type → pairs that are wanted, of all types that the adapter learned.
        masks: the type that each mask is for; None for any.
    """
    if {*masks} - {None, *pairs}:
        return []
    return [name for name, count in pairs.items() if count and not {None, name} & {*masks}]


def no_mask(types: Sequence[str], others: Sequence[str]) -> str:
    """Say that no given mask is for types.

    Args:
        others: the types that masks are for.
    """
    advice = "give one"
    if others:
        first = others[0]
        advice += (
            f', or ask for the other types alone, such as --defects {first}=3 ("defects": {{"{first}": 3}} of a job)'
        )
    return f"no mask is for {enumerated(types)}: {advice}"


def spread_evenly(names: Sequence[str], num_pairs: int) -> dict[str, int]:
    """Divide pairs among names; where they do not divide, the first ones get one more."""
    each, more = divmod(num_pairs, len(names))
    return {name: each + (number < more) for number, name in enumerate(names)}
