"""Resolves settings of sampling, declared in `service.core.options.dualanodiff`; a base may recommend others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from model.diffusion.base import Base
from service.core.options.combinations import NOT_REFINED, is_anchored, unused_starts
from service.core.options.common import MaskMethod
from service.core.options.declaration import choose, chosen
from service.core.options.dualanodiff import SamplingConfig
from service.core.options.methods import METHOD_OPTIONS
from service.core.options.presets import GUIDANCE, GUIDANCE_WITH_BCM, sampling_preset


def resolve_sampling(
    base: Base, options: Mapping[str, Any], *, has_normals: bool, has_mask_net: bool = True, bcm: bool = False
) -> SamplingConfig:
    """Resolve the settings: the user's choices override a preset's, these the base's recommendations, these defaults.

    A chosen `strength` turns off a recommended copy-paste initialisation, because it is meant for the other start. A
    copy-paste initialisation has a part of its own: it and `part_guidance` turn each other's recommendation off. A
    second pass is recommended for pairs on normals, made without BCM.

    Args:
        options: field name → value; None means not chosen.
        has_normals: whether normal images are given; they make sampling anchored.
        has_mask_net: whether the adapter has a mask network; without one, masks are found by threshold.
        bcm: whether the adapter has BCM, for which the authors use less guidance.

    Raises:
        UsageError: if values are invalid; names each.
    """
    recommended = METHOD_OPTIONS["dualanodiff"].recommended("sampling", base.sampling)
    choose(SamplingConfig, f"sampling options that base {base.name} recommends", recommended)
    given = chosen(options)
    recommended |= sampling_preset(given.get("preset", "base"), bcm=bcm)
    anchored = is_anchored(given, recommended, has_normals=has_normals)
    if "strength" in given or given.get("part_guidance") or not anchored:
        recommended.pop("sketch_strength", None)
    if given.get("sketch_strength") or not anchored:
        recommended.pop("part_guidance", None)
    if not anchored or bcm:
        recommended.pop("refine_strength", None)
    suited = {
        "anchored": has_normals,
        "mask_method": MaskMethod.U2NET if has_mask_net else MaskMethod.THRESHOLD,
        "guidance_scale": GUIDANCE_WITH_BCM if bcm else GUIDANCE,
        "precision": "bf16" if base.device.type == "cuda" else "fp32",
    }

    def check(config: SamplingConfig) -> list[str]:
        problems = list(unused_starts(given, anchored=config.anchored, has_normals=has_normals).values())
        if bcm and given.get("refine_strength"):
            problems.append(NOT_REFINED)
        return problems

    return choose(SamplingConfig, "dualanodiff sampling options", suited, recommended, given, check=check)
