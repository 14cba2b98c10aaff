"""How much work a request asks for: the pixels that pass through the denoiser.

A training takes steps × batch × accumulate × resolution², a job candidates × steps × resolution². What a request leaves
open takes the value that the base recommends.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from service.core.options.declaration import chosen
from service.core.options.dualanodiff import SamplingConfig, TrainingConfig
from service.core.options.presets import sampling_preset, training_preset

USUAL_RESOLUTION = 512
"""Pixels; of bases that are not known yet, as of Stable Diffusion 1.5."""

CANDIDATES_PER_PAIR = 10
"""Candidates that a job may try per pair, if it does not say otherwise."""


@dataclass(frozen=True, slots=True)
class Work:
    """An amount of work as a product.

    Attributes:
        factors: name → number.
    """

    factors: Mapping[str, int]

    @property
    def total(self) -> int:
        return math.prod(self.factors.values())

    def __str__(self) -> str:
        """The product in full, such as "steps 5,000 × batch 4 = 20,000"."""
        return f"{' × '.join(f'{name} {number:,}' for name, number in self.factors.items())} = {self.total:,}"


def training_work(options: Mapping[str, Any], recommended: Mapping[str, Any], resolution: int | None) -> Work:
    """Work of training an adapter by DualAnoDiff.

    Args:
        options: option → value; None means not chosen.
        recommended: what the base recommends.
        resolution: the base's own; None if it is not known.
    """
    given = chosen(options)
    preset = training_preset(given.get("preset", "base"), bcm=bool(given.get("bcm", recommended.get("bcm", False))))
    found = {**asdict(TrainingConfig()), **recommended, **preset, **given}
    side = found["resolution"] or resolution or USUAL_RESOLUTION
    return Work({**{name: int(found[name]) for name in ("steps", "batch", "accumulate")}, "resolution²": side**2})


def sampling_work(asked: Mapping[str, Any], recommended: Mapping[str, Any], resolution: int | None) -> Work:
    """Work of a job with an adapter of DualAnoDiff.

    Args:
        asked: the job's request; None means not chosen.
        recommended: what the base recommends.
        resolution: the adapter's; None if it is not known.
    """
    given = chosen(asked)
    found = {
        **asdict(SamplingConfig()),
        **recommended,
        **sampling_preset(given.get("preset", "base"), bcm=False),
        **given,
    }
    candidates = given.get("max_attempts", CANDIDATES_PER_PAIR * given["num_pairs"])
    side = resolution or USUAL_RESOLUTION
    return Work({"candidates": candidates, "steps": int(found["steps"]), "resolution²": side**2})
