"""Defines what a defect is: altered colours, and how far they cover the picture.

Every defect is a function `(rng, canvas, strength) -> Defect`; `strength` 1 is the usual contrast, larger is stronger.
Lengths are written for a picture of 128 px and scaled by `canvas.k`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from model.pretrain.procedural.canvas import Canvas
from model.pretrain.procedural.noise import Field, Rng, mix


@dataclass(frozen=True)
class Defect:
    """Altered colours `(H, W, 3)` and their coverage `(H, W)` in [0, 1]."""

    picture: Field
    coverage: Field


DefectKind = Callable[[Rng, Canvas, float], Defect]


def contrast(rng: Rng, canvas: Canvas, coverage: Field, dark: float = 0.5) -> int:
    """Sign of a visible change under `coverage`: darker with probability `dark`, away from black and white."""
    brightness = float((canvas.picture.mean(axis=2) * coverage).sum() / max(float(coverage.sum()), 1e-6))
    if brightness < 0.14:
        return 1
    if brightness > 0.8:
        return -1
    return -1 if rng.random() < dark else 1


def shift(canvas: Canvas, amount: Field) -> Field:
    """The picture brightened by `amount` of the full range or, negative, darkened to a share of itself.

    Either way it keeps some of its texture; a shadow on a dark part is darker still, not black.
    """
    light, shade = np.maximum(amount, 0)[..., None], np.minimum(amount, 0)[..., None]
    lit = canvas.picture * (1 + 0.5 * light) + 0.7 * light
    return np.clip(lit * np.exp(1.8 * shade), 0, 1).astype(np.float32)


def over(first: Defect, second: Defect) -> Defect:
    """Both defects in one picture, the second on top."""
    picture = mix(first.picture, second.picture, second.coverage)
    return Defect(picture, np.maximum(first.coverage, second.coverage))
