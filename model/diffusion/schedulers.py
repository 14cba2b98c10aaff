"""Makes diffusers' schedulers for a base's noise schedule."""

from __future__ import annotations

from typing import Any

import diffusers
from diffusers import DPMSolverMultistepScheduler
from diffusers.schedulers import KarrasDiffusionSchedulers
from torch import Tensor

SCHEDULERS = frozenset(KarrasDiffusionSchedulers.__members__) - {"EDMEulerScheduler"}
"""diffusers' schedulers for Stable Diffusion; not EDM's, which scales its inputs differently."""


def make_scheduler(name: str, config: dict[str, Any]) -> Any:
    """Make a new scheduler, since they keep state, for the base's noise schedule."""
    if name == "dpmsolver++":
        return DPMSolverMultistepScheduler.from_config(config, algorithm_type="dpmsolver++")
    return getattr(diffusers, name).from_config(config)


def start_after(scheduler: Any, strength: float) -> tuple[int, Tensor]:
    """Have a scheduler begin late, with an image that is noised; its steps are set.

    Args:
        strength: share of the steps that are taken, in (0, 1].

    Returns:
        The number of the first step, and the timestep to noise for, `(1,)`.
    """
    steps = len(scheduler.timesteps)
    begin = min(steps - 1, round(steps * (1 - strength)))
    begin -= begin % scheduler.order  # second-order schedulers list every step twice
    if hasattr(scheduler, "set_begin_index"):  # those without it use the timestep alone
        scheduler.set_begin_index(begin)
    return begin, scheduler.timesteps[begin : begin + 1]
