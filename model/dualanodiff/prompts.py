"""The nested prompts (DualAnoDiff, section "nested prompts"): "a vfx with sks" for the image, "sks" for the part."""

from __future__ import annotations

from service.core.options.common import PromptStyle

RARE_OBJECT, RARE_DEFECT = "vfx", "sks"
"""Rare tokens for object and defect; the paper found them to work better than the names."""

NO_DEFECT = "no defect"
"""Prompt of the anomaly branch for a part without a defect; not empty, because guidance leads away from that."""


def nested_prompts(object_name: str, defect_name: str, style: PromptStyle) -> tuple[str, str]:
    """Return `(global, anomaly)` prompts; the anomaly prompt is the part of the global one that names the defect."""
    x, y = (RARE_OBJECT, RARE_DEFECT) if style == "rare" else (object_name, defect_name)
    return f"a {x} with {y}", y


def good_prompts(object_name: str, style: PromptStyle) -> tuple[str, str]:
    """Return `(global, anomaly)` prompts for a part without a defect."""
    return f"a {RARE_OBJECT if style == 'rare' else object_name}", NO_DEFECT
