"""Colours of materials, as `(3,)` float32 RGB in [0, 1]."""

from __future__ import annotations

import numpy as np

from model.pretrain.procedural.noise import Field, Rng


def rgb(red: float, green: float, blue: float) -> Field:
    """One colour."""
    return np.array([red, green, blue], dtype=np.float32)


def vary(rng: Rng, colour: Field, amount: float = 0.06) -> Field:
    """A neighbour of `colour`: brightness and hue shifted by about `amount`."""
    shifted = colour * np.float32(rng.uniform(1 - 3 * amount, 1 + 3 * amount)) + rng.normal(0.0, amount / 2, 3)
    return np.clip(shifted, 0.02, 1.0).astype(np.float32)


def between(rng: Rng, first: Field, second: Field) -> Field:
    """A random colour on the line between two, varied a little."""
    return vary(rng, first + (second - first) * np.float32(rng.random()))


def grey(rng: Rng, low: float, high: float) -> Field:
    """A nearly neutral grey of brightness `low` to `high`."""
    return np.clip(rng.uniform(low, high) + rng.normal(0.0, 0.012, 3), 0.0, 1.0).astype(np.float32)


def mild(rng: Rng, low: float, high: float) -> Field:
    """A grey of brightness `low` to `high` with a breath of any colour, as plastic trays and stones have."""
    hue = rng.normal(0.0, 1.0, 3)
    return np.clip(rng.uniform(low, high) * (1 + 0.04 * (hue - hue.mean())), 0.0, 1.0).astype(np.float32)


def vivid(rng: Rng) -> Field:
    """Any colour, from pastel to saturated, dark to light."""
    hue = rng.random(3)
    saturation = rng.uniform(0.15, 0.95)
    value = rng.uniform(0.25, 0.95)
    spread = (hue - hue.min()) / max(float(hue.max() - hue.min()), 1e-3)
    return (value * (1 - saturation + saturation * spread)).astype(np.float32)


def metal(rng: Rng) -> Field:
    """Steel, aluminium, and now and then brass or copper."""
    if rng.random() < 0.8:
        return grey(rng, 0.3, 0.75)
    return between(rng, rgb(0.72, 0.58, 0.3), rgb(0.7, 0.43, 0.3))
