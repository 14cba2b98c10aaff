"""Named sets of options; a chosen option counts before its preset, and that before what the base recommends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

Preset = Literal["base", "paper"]
"""`base` is what the base recommends. `paper` is DualAnoDiff as published, for Stable Diffusion 1.5."""

PAPER_TRAINING: Mapping[str, Any] = {
    "steps": 5000,
    "early_stop": False,
    "batch": 4,
    "accumulate": 1,
    "rank": 32,
    "text_rank": 32,
    "lr": 2e-5,
    "interaction_lr": 2e-5,
    "lora_targets": "attention",
    "warmup": 0,
    "resolution": 512,
    "view": "whole",
    "views": 64,
    "prompts": "rare",
    "defect_weight": 0.0,
    "composites": 0,
}
"""The paper's training; the released code crops at random in every step, so there are many crops to draw from."""

PAPER_BATCH_WITH_BCM = 2

PAPER_SAMPLING: Mapping[str, Any] = {
    "steps": 100,
    "scheduler": "DDIMScheduler",
    "anchored": False,
    "sketch_strength": 0.0,
    "part_guidance": 0.0,
    "refine_strength": 0.0,
    "match_mask": False,
}
"""The released code's sampling: from noise; normals serve as backgrounds alone."""

GUIDANCE, GUIDANCE_WITH_BCM = 2.5, 2.0
"""Classifier-free guidance of the authors' own runs."""


def training_preset(preset: Preset, *, bcm: bool) -> dict[str, Any]:
    """Return the options of training that a preset sets."""
    if preset != "paper":
        return {}
    return {**PAPER_TRAINING, "batch": PAPER_BATCH_WITH_BCM} if bcm else dict(PAPER_TRAINING)


def sampling_preset(preset: Preset, *, bcm: bool) -> dict[str, Any]:
    """Return the options of sampling that a preset sets.

    Args:
        bcm: whether the adapter has BCM.
    """
    if preset != "paper":
        return {}
    return {**PAPER_SAMPLING, "guidance_scale": GUIDANCE_WITH_BCM if bcm else GUIDANCE}
