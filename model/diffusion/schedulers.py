"""Makes diffusers' schedulers for a base's noise schedule."""

from __future__ import annotations

from typing import Any

import diffusers
from diffusers import DPMSolverMultistepScheduler
from diffusers.schedulers import KarrasDiffusionSchedulers

SCHEDULERS = frozenset(KarrasDiffusionSchedulers.__members__) - {"EDMEulerScheduler"}
"""diffusers' schedulers for Stable Diffusion; not EDM's, which scales its inputs differently."""


def make_scheduler(name: str, config: dict[str, Any]) -> Any:
    """Make a new scheduler, since they keep state, for the base's noise schedule."""
    if name == "dpmsolver++":
        return DPMSolverMultistepScheduler.from_config(config, algorithm_type="dpmsolver++")
    return getattr(diffusers, name).from_config(config)
