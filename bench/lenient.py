"""Defines limits that pairs of a barely trained adapter pass, so that about as many candidates as pairs are made."""

from __future__ import annotations

LENIENT: dict[str, float] = {
    **dict.fromkeys(("min_area_ratio", "min_visibility_ratio", "min_visibility"), 0.0),
    **dict.fromkeys(("min_change_ratio", "min_change_inside"), 0.0),
    **dict.fromkeys(("max_area_ratio", "border_ratio", "max_unlikeness", "max_ledge"), 1000.0),
    **dict.fromkeys(("min_border_share", "max_cut_share", "max_off_object", "full_area"), 1.0),
    **dict.fromkeys(("defect_copy", "scene_copy", "accepted_copy", "max_copy"), 1.0),
    "max_disagreement": 255.0,
}
