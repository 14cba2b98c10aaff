"""How much work a request asks for: the pixels that pass through the denoiser.

A training takes steps × batch × accumulate × resolution², where learning to draw masks takes steps like those of the
defect; a job takes candidates × steps × resolution². What a request leaves open takes the value that the base
recommends. Methods without a model take none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from service.core.options.declaration import chosen
from service.core.options.methods import METHOD_OPTIONS, own_options
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


def training_work(
    method: str, options: Mapping[str, Any], recommended: Mapping[str, Any], resolution: int | None
) -> Work | None:
    """Work of training an adapter; None if its method has no model.

    Args:
        options: option → value; None means not chosen.
        recommended: what the base recommends.
        resolution: the base's own; None if it is not known.
    """
    declared = METHOD_OPTIONS[method]
    if not declared.has_model:
        return None
    given = chosen(own_options("training", method, options))
    preset = training_preset(given.get("preset", "base"), bcm=bool(given.get("bcm", recommended.get("bcm", False))))
    found = {**asdict(declared.training()), **declared.recommended("training", recommended), **preset, **given}
    side = found["resolution"] or resolution or USUAL_RESOLUTION
    steps = {"steps": int(found["steps"])}
    if to_draw_masks := int(found.get("mask_generator_steps", 0)):
        steps = {"steps and mask_generator_steps": steps["steps"] + to_draw_masks}
    return Work({**steps, **{name: int(found[name]) for name in ("batch", "accumulate")}, "resolution²": side**2})


def sampling_work(
    method: str, asked: Mapping[str, Any], recommended: Mapping[str, Any], resolution: int | None
) -> Work | None:
    """Work of a job; None if the method of its adapter has no model.

    Args:
        asked: the job's request; None means not chosen.
        recommended: what the base recommends.
        resolution: the adapter's; None if it is not known.
    """
    declared = METHOD_OPTIONS[method]
    if not declared.has_model:
        return None
    given = chosen(own_options("sampling", method, asked))
    found = {
        **asdict(declared.sampling()),
        **declared.recommended("sampling", recommended),
        **sampling_preset(given.get("preset", "base"), bcm=False),
        **given,
    }
    candidates = given.get("max_attempts", CANDIDATES_PER_PAIR * given["num_pairs"])
    side = resolution or USUAL_RESOLUTION
    return Work({"candidates": candidates, "steps": int(found["steps"]), "resolution²": side**2})
