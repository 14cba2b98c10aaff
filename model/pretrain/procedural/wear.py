"""Draws soft damage over a wide area: wear, abrasion, discoloration, unevenness.

Such damage fades out, so its mask ends where it is too faint to see.
"""

from __future__ import annotations

import numpy as np

from model.pretrain.procedural import colours
from model.pretrain.procedural.alteration import Defect, contrast, shift
from model.pretrain.procedural.canvas import Canvas, blob, edge, extent, inside
from model.pretrain.procedural.noise import Field, Rng, direction, fractal, mix, oriented, plain, rotated, step, white

_FAINTEST = 0.2
"""Share of the full effect at which the mask ends."""


def _patch(rng: Rng, canvas: Canvas) -> Field:
    """How far an area is affected, 0 to 1: a soft, patchy blob or a band along a direction."""
    k, size = canvas.k, canvas.size
    at = edge(rng, canvas) if rng.random() < 0.3 else inside(rng, canvas)
    radius = extent(rng, canvas, 8, 62)
    distance: Field
    if rng.random() < 0.25:
        _, v = rotated(size, direction(rng), at)
        distance = 0.6 * radius - np.abs(v)
    else:
        distance = blob(rng, canvas, at, radius, rng.uniform(0.15, 0.5), rng.uniform(1, 3))
    patchy = fractal(rng, size, rng.uniform(8, 25) * k, 3, 0.6) * rng.uniform(0.05, 0.3) * radius
    return step((distance + patchy - 0.15 * radius).astype(np.float32), rng.uniform(0.3, 1.0) * radius)


def _soft(canvas: Canvas, picture: Field, amount: Field) -> Defect:
    """`picture` faded in by `amount`, and the coverage that ends where it is faint."""
    rows, columns = np.gradient(amount)
    slope = np.maximum(np.hypot(rows, columns), 0.02)
    faded = mix(canvas.picture, picture, amount)
    return Defect(np.clip(faded, 0, 1), step(((amount - _FAINTEST) / slope).astype(np.float32)))


def wear(rng: Rng, canvas: Canvas, strength: float) -> Defect:
    """Rubbed off: paler or darker, with less of the surface's own texture, the base colour showing in places."""
    amount = _patch(rng, canvas)
    sign = contrast(rng, canvas, amount, 0.35)
    mean = canvas.picture[canvas.distance > 0].mean(axis=0)
    flat = canvas.picture + (mean - canvas.picture) * np.float32(rng.uniform(0.2, 0.7))
    base = colours.grey(rng, 0.5, 0.9) if sign > 0 else colours.grey(rng, 0.05, 0.3)
    bare = step(fractal(rng, canvas.size, rng.uniform(3, 10) * canvas.k, 4, 0.7) - rng.uniform(-0.3, 1.2), 0.8)
    worn = np.clip(flat * (1 + 0.25 * sign * strength) + 0.1 * sign * strength, 0, 1)
    worn = mix(worn, plain(base, canvas.size), bare * np.float32(rng.uniform(0.2, 0.7)))
    return _soft(canvas, worn, amount)


def abrasion(rng: Rng, canvas: Canvas, strength: float) -> Defect:
    """Scuffed: fine streaks in one direction."""
    amount, k = _patch(rng, canvas), canvas.k
    sign = contrast(rng, canvas, amount, 0.35)
    streaks = oriented(rng, canvas.size, rng.uniform(6, 40) * k, rng.uniform(0.6, 1.3) * k, rng.uniform(0, np.pi))
    value = sign * strength * (rng.uniform(0.05, 0.15) + rng.uniform(0.1, 0.25) * np.maximum(streaks, -0.3))
    return _soft(canvas, shift(canvas, (value + 0.02 * white(rng, canvas.size)).astype(np.float32)), amount)


def discoloration(rng: Rng, canvas: Canvas, strength: float) -> Defect:
    """Another tint, the texture kept."""
    amount = _patch(rng, canvas)
    sign = contrast(rng, canvas, amount, 0.6)
    tint = colours.vivid(rng) if rng.random() < 0.6 else colours.rgb(0.55, 0.42, 0.28)
    value = np.float32(1 + 0.22 * sign * strength)
    tinted = canvas.picture * value * (1 + np.float32(0.5 * strength) * (tint - tint.mean()))
    return _soft(canvas, np.clip(tinted + np.float32(0.05 * sign * strength), 0, 1).astype(np.float32), amount)


def unevenness(rng: Rng, canvas: Canvas, strength: float) -> Defect:
    """A hollow or swelling of the surface that reflects the light otherwise."""
    amount = _patch(rng, canvas)
    sign = contrast(rng, canvas, amount, 0.5)
    relief = fractal(rng, canvas.size, rng.uniform(8, 30) * canvas.k, 3, 0.6)
    value = sign * strength * np.clip(rng.uniform(0.12, 0.25) + 0.08 * relief, 0.03, 0.6)
    return _soft(canvas, shift(canvas, value.astype(np.float32)), amount)
