"""Resolves settings, declared in `service.core.options.anomalydiffusion`; a base may recommend others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from model.diffusion.base import Base
from model.diffusion.schedulers import SCHEDULERS
from service.core.errors import UsageError
from service.core.options.anomalydiffusion import AnomalySamplingConfig, AnomalyTrainingConfig
from service.core.options.combinations import unused_with_learned_masks
from service.core.options.declaration import choose, chosen
from service.core.options.methods import METHOD_OPTIONS

NAME = "anomalydiffusion"

NO_NORMALS = f"{NAME} draws defects on normal images, but none were given: provide normals"


def resolve_training(base: Base, options: Mapping[str, Any]) -> AnomalyTrainingConfig:
    """Resolve the settings: the user's override the base's, these the defaults (on GPUs in bf16).

    Raises:
        UsageError: if values are invalid; names each.
    """
    recommended = METHOD_OPTIONS[NAME].recommended("training", base.few_shot)
    suited: dict[str, Any] = {"precision": "bf16"} if base.device.type == "cuda" else {}
    config = choose(
        AnomalyTrainingConfig,
        f"{NAME} training options",
        suited,
        recommended,
        chosen(options),
        check=lambda config: _problems(base, config),
    )
    return replace(config, resolution=config.resolution or base.resolution)


def _problems(base: Base, config: AnomalyTrainingConfig) -> list[str]:
    cell = base.factor * 2 ** (len(base.unet.config.block_out_channels) - 1)
    if config.resolution % cell:
        return [f"resolution is {config.resolution}; this base needs a positive multiple of {cell} pixels"]
    return []


def resolve_sampling(base: Base, options: Mapping[str, Any], *, has_normals: bool) -> AnomalySamplingConfig:
    """Resolve the settings; without guidance unless it is asked for.

    Raises:
        UsageError: if values are invalid, or there are no normals; names each.
    """
    recommended = METHOD_OPTIONS[NAME].recommended("sampling", base.sampling)
    suited = {"precision": "bf16" if base.device.type == "cuda" else "fp32"}
    layers = (suited, recommended, chosen(options))
    config = choose(AnomalySamplingConfig, f"{NAME} sampling options", *layers, check=_sampling_problems)
    if not has_normals:
        raise UsageError(NO_NORMALS)
    return config


def _sampling_problems(config: AnomalySamplingConfig) -> list[str]:
    problems = []
    if config.scheduler not in {"dpmsolver++", *SCHEDULERS}:
        known = ", ".join(("dpmsolver++", *sorted(SCHEDULERS)))
        problems.append(f"scheduler is {config.scheduler!r}; it must be one of {known}")
    return [*problems, *unused_with_learned_masks(config.as_dict()).values()]
