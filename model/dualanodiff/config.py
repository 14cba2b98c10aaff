"""Resolves settings of few-shot training, declared in `service.core.options.dualanodiff`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from model.diffusion.base import Base
from service.core.options.declaration import choose, chosen
from service.core.options.dualanodiff import TrainingConfig
from service.core.options.methods import METHOD_OPTIONS
from service.core.options.presets import training_preset


def resolve_config(base: Base, options: Mapping[str, Any]) -> TrainingConfig:
    """Resolve the settings: the user's override a preset's, these the base's, these the paper's (on GPUs in bf16).

    Args:
        options: field name → value; None means not chosen.

    Raises:
        UsageError: if values are invalid; names each.
    """
    recommended = METHOD_OPTIONS["dualanodiff"].recommended("training", base.few_shot)
    choose(TrainingConfig, f"training options that base {base.name} recommends", recommended)
    given = chosen(options)
    bcm = bool(given.get("bcm", recommended.get("bcm", False)))
    suited: dict[str, Any] = {"precision": "bf16"} if base.device.type == "cuda" else {}
    config = choose(
        TrainingConfig,
        "dualanodiff training options",
        suited,
        recommended,
        training_preset(given.get("preset", "base"), bcm=bcm),
        given,
        check=lambda config: _problems(base, config),
    )
    return replace(config, resolution=config.resolution or base.resolution)


def _problems(base: Base, config: TrainingConfig) -> list[str]:
    problems = []
    cell = base.factor * 2 ** (len(base.unet.config.block_out_channels) - 1)
    if config.resolution % cell:
        problems.append(f"resolution is {config.resolution}; this base needs a positive multiple of {cell} pixels")
    if not config.steps and (config.bcm or config.reference_init):
        problems.append(
            "steps is 0, which leaves the base as it is, but bcm and reference_init begin with random weights: "
            "train some steps, or turn these off"
        )
    if config.reference_init and not config.saim:
        problems.append("reference_init begins with a random SAIM, but saim is off: choose one")
    if config.real_share + config.prior_share > 1:
        problems.append(
            f"real_share is {config.real_share} and prior_share {config.prior_share}; together they must be at most 1"
        )
    return problems
