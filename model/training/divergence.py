"""Recognises a training that has diverged, so that it ends instead of keeping weights that are no numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from service.core.errors import DivergedError

SUMMARY = "The training diverged"

LOWER_RATES = "lower lr and interaction_lr, for example to a tenth, add warmup steps, or use precision fp32"

OTHER_DRAWS = "evaluate with another profile or number of seeds; the learning rate of a detector is no option"


def require_finite_loss(loss: float, step: int, remedy: str = LOWER_RATES) -> float:
    """Return the loss.

    Args:
        remedy: what to change if it is not finite.

    Raises:
        DivergedError: if it is infinite or not a number.
    """
    if not math.isfinite(loss):
        raise DivergedError(f"the loss was {loss} by step {step}: {remedy}", SUMMARY)
    return loss


def require_finite_weights(weights: Iterable[Tensor], step: int, remedy: str = LOWER_RATES) -> None:
    """Check the weights after the last step, whose effect no later loss shows.

    Args:
        remedy: what to change if one of them is not finite.

    Raises:
        DivergedError: if one of them is infinite or not a number.
    """
    if not all(bool(torch.isfinite(weight).all()) for weight in weights):
        raise DivergedError(f"weights were no finite numbers after step {step}: {remedy}", SUMMARY)
