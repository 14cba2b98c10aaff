"""The options of sampling, with their defaults and checks."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch

from model.diffusion.base import Base
from model.diffusion.schedulers import SCHEDULERS
from model.masks.extraction import MaskMethod
from service.core.errors import UsageError

GUIDANCE, GUIDANCE_WITH_BCM = 2.5, 2.0
"""Classifier-free guidance of the authors' own runs."""


@dataclass(frozen=True, slots=True)
class SamplingConfig:
    """How pairs are sampled.

    Attributes:
        seed: of the whole request.
        steps: denoising steps.
        guidance_scale: classifier-free guidance w; 1 is none (and half the work). The authors use 2.5, 2.0 with BCM.
        scheduler: "dpmsolver++", or the name of any diffusers scheduler class.
        batch: pairs denoised together at most, fewer where memory is short. With guidance and both branches 8 are 32
            rows, enough to fill a large GPU at 512².
        mask_method: see `model.masks.extraction`.
        anchored: start from normal images and keep their background; needs normals.
        strength: where an anchored start lies, as a share of the noise schedule; 1 forgets the normal at the start.
        sketch_strength: above 0, an anchored start lies here instead, and has a real defect, changed at random, on the
            normal (see `model.data.copy_paste`); what comes of it stays near. For bases too small to compose a defect.
        blend_from: share of the denoising after which the background outside the defect is the normal's.
        agreement: in anchored sampling, how far the image's latents inside the defect are drawn to the part's, in
            [0, 1]. By definition the two are equal there (I_a = I × M_a); a weak base needs the reminder.
        precision: "fp32" or "bf16", which is the default on GPUs.
    """

    seed: int = 0
    steps: int = 25
    guidance_scale: float = GUIDANCE
    scheduler: str = "dpmsolver++"
    batch: int = 8
    mask_method: MaskMethod = MaskMethod.U2NET
    anchored: bool = False
    strength: float = 0.9
    sketch_strength: float = 0.0
    blend_from: float = 0.5
    agreement: float = 0.0
    precision: str = "fp32"

    @property
    def dtype(self) -> torch.dtype:
        """Of weights and computation."""
        return torch.bfloat16 if self.precision == "bf16" else torch.float32


def resolve_sampling(
    base: Base, chosen: dict[str, Any], *, has_normals: bool, has_mask_net: bool = True, bcm: bool = False
) -> SamplingConfig:
    """The defaults, over them the base's recommendations, over them what the user chose (None: not chosen).

    Choosing `strength` alone chooses the start that it is meant for, without a sketch.

    Args:
        has_normals: whether normal images are given; they make sampling anchored.
        has_mask_net: whether the adapter has a mask network; without one masks come by threshold.
        bcm: whether the adapter has BCM, for which the authors use less guidance.

    Raises:
        UsageError: naming every value that cannot be.
    """
    known = {field.name for field in fields(SamplingConfig)}
    recommended = {key: value for key, value in base.sampling.items() if key in known}
    given = {key: value for key, value in chosen.items() if value is not None}
    if unknown := sorted(set(given) - known):
        raise UsageError(f"unknown sampling options {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    defaults = SamplingConfig(
        anchored=has_normals,
        mask_method=MaskMethod.U2NET if has_mask_net else MaskMethod.THRESHOLD,
        guidance_scale=GUIDANCE_WITH_BCM if bcm else GUIDANCE,
        precision="bf16" if base.device.type == "cuda" else "fp32",
    )
    anchored = given.get("anchored", recommended.get("anchored", has_normals))
    if "strength" in given or not anchored:
        recommended.pop("sketch_strength", None)
    config = replace(defaults, **{**recommended, **given})
    problems = [
        f"{name} is {given[name]}, but it is about anchored sampling, on normal images, which is off"
        for name in ("strength", "sketch_strength")
        if given.get(name) and not anchored
    ]
    if given.get("strength") and given.get("sketch_strength"):
        problems.append("strength and sketch_strength both say where sampling starts: choose one")
    if problems := problems + _problems(config, has_normals=has_normals):
        raise UsageError(problems, "The sampling options cannot be used")
    return replace(config, mask_method=MaskMethod(config.mask_method))


def _problems(config: SamplingConfig, *, has_normals: bool) -> list[str]:
    least = {"seed": (config.seed, 0), "steps": (config.steps, 1), "batch": (config.batch, 1)}
    problems = [
        f"{name} is {value}; it must be at least {lowest}" for name, (value, lowest) in least.items() if value < lowest
    ]
    if not config.guidance_scale >= 0:
        problems.append(f"guidance_scale is {config.guidance_scale}; it must not be negative")
    if not 0 < config.strength <= 1:
        problems.append(f"strength is {config.strength}; it must be above 0 and at most 1")
    shares = {
        "sketch_strength": config.sketch_strength,
        "blend_from": config.blend_from,
        "agreement": config.agreement,
    }
    problems += [f"{name} is {share}; it must be from 0 to 1" for name, share in shares.items() if not 0 <= share <= 1]
    if config.anchored and not has_normals:
        problems.append("anchored sampling needs normal images; none were given")
    for name, value, allowed in (
        ("mask_method", config.mask_method, tuple(MaskMethod)),
        ("precision", config.precision, ("fp32", "bf16")),
        ("scheduler", config.scheduler, ("dpmsolver++", *sorted(SCHEDULERS))),
    ):
        if value not in allowed:
            problems.append(f"{name} is {value!r}; it must be one of {', '.join(allowed)}")
    return problems
