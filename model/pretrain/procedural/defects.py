"""Defects drawn on a part: each returns the altered colours and how far they cover the picture.

Every defect is a function `(rng, canvas, strength) -> Defect`; `strength` 1 is the usual contrast, larger is stronger.
Lengths are written for a picture of 128 px and scaled by `canvas.k`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from model.pretrain.procedural import colours
from model.pretrain.procedural.canvas import Canvas, blob, edge, inside, polygon, stroke, wander
from model.pretrain.procedural.noise import (
    Field,
    Rng,
    fractal,
    grid,
    mix,
    plain,
    relief,
    rotated,
    sample,
    smooth,
    step,
    white,
)


@dataclass(frozen=True)
class Defect:
    """Altered colours `(H, W, 3)` and their coverage `(H, W)` in [0, 1]."""

    picture: Field
    coverage: Field


DefectKind = Callable[[Rng, Canvas, float], Defect]


def contrast(rng: Rng, canvas: Canvas, coverage: Field, dark: float = 0.5) -> int:
    """Sign of a visible change under `coverage`: darker with probability `dark`, away from black and white."""
    brightness = float((canvas.picture.mean(axis=2) * coverage).sum() / max(float(coverage.sum()), 1e-6))
    if brightness < 0.22:
        return 1
    if brightness > 0.8:
        return -1
    return -1 if rng.random() < dark else 1


def shift(canvas: Canvas, amount: Field) -> Field:
    """The picture brightened (or, negative, darkened) by `amount` of the full range, keeping some of its texture."""
    return np.clip(canvas.picture * (1 + 0.5 * amount)[..., None] + 0.7 * amount[..., None], 0, 1).astype(np.float32)


def scratch(rng: Rng, canvas: Canvas, strength: float) -> Defect:
    k, coverage = canvas.k, np.zeros((canvas.size, canvas.size), dtype=np.float32)
    angle, centre = rng.uniform(0, np.pi), inside(rng, canvas)
    for _ in range(int(rng.choice([1, 2, 3, 5], p=[0.6, 0.2, 0.12, 0.08]))):
        path = wander(rng, centre, angle + rng.normal(0, 0.15), rng.uniform(14, 85) * k, 0.02, rng.normal(0, 0.5))
        taper = np.sin(np.linspace(0.15, np.pi - 0.15, len(path))) ** 0.5
        coverage = np.maximum(coverage, stroke(canvas.size, path, taper * rng.uniform(1.1, 3.2) * k))
        centre = (centre[0] + rng.normal(0, 6) * k, centre[1] + rng.normal(0, 6) * k)
    sign = contrast(rng, canvas, coverage, 0.4)
    uneven = 1 + 0.3 * smooth(rng, canvas.size, 6 * k)
    return Defect(shift(canvas, (sign * rng.uniform(0.22, 0.5) * strength * uneven).astype(np.float32)), coverage)


def crack(rng: Rng, canvas: Canvas, strength: float) -> Defect:
    k = canvas.k
    start = inside(rng, canvas) if rng.random() < 0.75 else edge(rng, canvas)
    length, angle = rng.uniform(22, 105) * k, rng.uniform(0, np.pi)
    width = rng.uniform(1.2, 3.4) * k
    path = wander(rng, start, angle, length, rng.uniform(0.15, 0.4), rng.normal(0, 0.4))
    swell = np.interp(np.arange(len(path)), np.linspace(0, len(path), 12), rng.uniform(0.45, 1.25, 12))
    taper = np.minimum(1, np.linspace(3, 0.35, len(path))) * swell
    coverage = stroke(canvas.size, path, np.maximum(width * taper, 0.9))
    for _ in range(int(rng.choice([0, 1, 2, 4], p=[0.3, 0.3, 0.25, 0.15]))):
        joint = path[rng.integers(len(path) // 5, len(path))]
        turn = angle + rng.choice([-1, 1]) * rng.uniform(0.4, 1.1)
        branch = wander(rng, (0.0, 0.0), turn, rng.uniform(0.15, 0.45) * length, 0.3, 0.0)
        branch = branch - branch[0] + joint
        coverage = np.maximum(coverage, stroke(canvas.size, branch, np.linspace(0.7 * width, 0.9, len(branch))))
    sign = contrast(rng, canvas, coverage, 0.93)
    depth = np.clip(1 + 0.3 * smooth(rng, canvas.size, 7 * k), 0.4, 1.6)
    return Defect(shift(canvas, (sign * rng.uniform(0.25, 0.5) * strength * depth).astype(np.float32)), coverage)


def pit(rng: Rng, canvas: Canvas, strength: float, radius: float) -> Defect:
    """A cavity: dark, deeper to one side, with a lit rim on the other."""
    k, light = canvas.k, rng.uniform(0, 6.3)
    distance = blob(rng, canvas, inside(rng, canvas), radius, rng.uniform(0.1, 0.5), rng.uniform(1, 2.2))
    depth = step(distance - 0.15 * radius, max(0.9 * radius, 1.5 * k))
    sign = contrast(rng, canvas, step(distance), 0.92)
    amount = sign * rng.uniform(0.3, 0.55) * strength * (0.55 + 0.45 * depth)
    rim = relief(-radius * step(distance, 2.2 * k), light) * step(0.6 * k - distance, k)
    picture = shift(canvas, amount + rng.uniform(0.1, 0.4) * np.clip(rim, -1, 1))
    return Defect(picture, step(distance + rng.uniform(0.2, 0.8) * k, 1.4))


def hole(rng: Rng, canvas: Canvas, strength: float) -> Defect:
    return pit(rng, canvas, strength, float(rng.uniform(3.5, 12.5)) * canvas.k)


def blowhole(rng: Rng, canvas: Canvas, strength: float) -> Defect:
    first = pit(rng, canvas, strength, float(1.5 + 5.5 * rng.random() ** 1.6) * canvas.k)
    if rng.random() < 0.75:
        return first
    second = pit(rng, canvas, strength, float(rng.uniform(1.5, 3.5)) * canvas.k)
    return Defect(mix(first.picture, second.picture, second.coverage), np.maximum(first.coverage, second.coverage))


def dent(rng: Rng, canvas: Canvas, strength: float) -> Defect:
    k, radius = canvas.k, rng.uniform(5, 19) * canvas.k
    distance = blob(rng, canvas, inside(rng, canvas), radius, 0.25, rng.uniform(1, 2.5))
    bowl = 1 - np.clip(distance / distance.max(), 0, 1)
    slope = relief((radius * np.cos(np.pi * bowl) * 0.5).astype(np.float32), rng.uniform(0, 6.3))
    sharp = np.tanh(slope)
    amount = rng.uniform(0.28, 0.5) * strength * sharp - 0.06 * strength * contrast(rng, canvas, step(distance))
    return Defect(shift(canvas, amount.astype(np.float32)), step(distance, 1.5 * k))


def stain(rng: Rng, canvas: Canvas, strength: float) -> Defect:
    k, radius = canvas.k, rng.uniform(7, 26) * canvas.k
    distance = blob(rng, canvas, inside(rng, canvas), radius, rng.uniform(0.2, 0.5), rng.uniform(1, 2))
    distance = distance + fractal(rng, canvas.size, 9 * k, 3) * np.float32(0.12 * radius)
    soft = rng.uniform(1.5, 5) * k
    sign = contrast(rng, canvas, step(distance), 0.75)
    dye = colours.vivid(rng) * np.float32(0.6) if rng.random() < 0.5 else colours.rgb(0.45, 0.36, 0.25)
    value = 1 + sign * rng.uniform(0.3, 0.55) * strength
    tidemark = np.exp(-((distance / (1.6 * k)) ** 2)) * rng.uniform(0, 0.25)
    wet = canvas.picture * (value - tidemark)[..., None] + np.float32(0.12 * strength if sign > 0 else 0)
    coloured = mix(wet, plain(dye, canvas.size), np.full_like(distance, rng.uniform(0, 0.45)))
    return Defect(np.clip(coloured, 0, 1), step(distance + 0.2 * soft, soft))


def fracture(rng: Rng, canvas: Canvas, distance: Field, strength: float) -> Field:
    """The rough inside of broken material: facets lit from one side, a lit or shadowed lip."""
    k = canvas.k
    rubble = fractal(rng, canvas.size, rng.uniform(6, 14) * k, 4, 0.75)
    facets = np.clip(relief(rubble * 2.2 * k, rng.uniform(0, 6.3)), -1.5, 1.5)
    sign = contrast(rng, canvas, step(distance), 0.55)
    colour = canvas.picture[distance > 0].mean(axis=0) if (distance > 0).any() else canvas.picture.mean(axis=(0, 1))
    lip = np.exp(-((distance / (1.3 * k)) ** 2)) * rng.uniform(-0.3, 0.35)
    value = sign * rng.uniform(0.1, 0.3) * strength + rng.uniform(0.12, 0.26) * strength * facets + lip
    value = value + 0.03 * white(rng, canvas.size)
    return np.clip(colour + value[..., None] * (0.35 + 0.65 * colour), 0, 1).astype(np.float32)


def chip(rng: Rng, canvas: Canvas, strength: float) -> Defect:
    at = edge(rng, canvas) if rng.random() < 0.7 else inside(rng, canvas)
    distance = polygon(rng, canvas, at, rng.uniform(6, 19) * canvas.k, rng.uniform(1, 2))
    return Defect(fracture(rng, canvas, distance, strength), step(distance, 1.4))


def fracture_break(rng: Rng, canvas: Canvas, strength: float) -> Defect:
    at = edge(rng, canvas) if rng.random() < 0.4 else inside(rng, canvas)
    distance = polygon(rng, canvas, at, rng.uniform(9, 26) * canvas.k, rng.uniform(1, 2.6))
    return Defect(fracture(rng, canvas, distance, strength), step(distance, 1.4))


def missing_piece(rng: Rng, canvas: Canvas, _strength: float) -> Defect:
    distance = polygon(rng, canvas, edge(rng, canvas), rng.uniform(9, 24) * canvas.k, rng.uniform(1, 2))
    lip = np.exp(-((distance / (1.5 * canvas.k)) ** 2)).astype(np.float32)
    gap = mix(canvas.behind, canvas.picture * np.float32(0.35), 0.8 * lip)
    return Defect(gap, step(distance, 1.3))


def bend(rng: Rng, canvas: Canvas, strength: float) -> Defect:
    """The part pushed sideways under a bump, with the light of the bulge."""
    rows, columns = grid(canvas.size)
    centre, angle, radius = inside(rng, canvas), rng.uniform(0, 6.3), rng.uniform(9, 20) * canvas.k
    u, v = rotated(canvas.size, angle, centre)
    bump = np.exp(-(((u / radius) ** 2 + (v / (radius * rng.uniform(0.5, 1))) ** 2) ** 1.5))
    push = rng.uniform(0.35, 0.6) * radius * min(strength, 2.0)
    middle = np.float32((canvas.size - 1) / 2)
    from_rows, from_columns = (
        rows + middle - push * np.sin(angle) * bump,
        columns + middle - push * np.cos(angle) * bump,
    )
    moved = sample(canvas.picture, from_rows, from_columns)
    light = (
        np.clip(relief((bump * radius).astype(np.float32), rng.uniform(0, 6.3)) * 0.9, -1, 1)
        * rng.uniform(0.15, 0.4)
        * strength
    )
    return Defect(
        np.clip(moved + light[..., None] * (0.3 + 0.7 * moved), 0, 1).astype(np.float32), step(bump - 0.3, 0.2)
    )


def particle(rng: Rng, canvas: Canvas, strength: float) -> Defect:
    """Foreign bodies: one or a few grains lying on the part, with their shadow."""
    k, centre, light = canvas.k, inside(rng, canvas), rng.uniform(0, 6.3)
    distance = np.full((canvas.size, canvas.size), -1e3, dtype=np.float32)
    for _ in range(int(rng.choice([1, 2, 4, 8], p=[0.45, 0.25, 0.2, 0.1]))):
        distance = np.maximum(distance, blob(rng, canvas, centre, rng.uniform(1.8, 7) * k, 0.5, rng.uniform(1, 2)))
        centre = (centre[0] + rng.normal(0, 9) * k, centre[1] + rng.normal(0, 9) * k)
    shade = relief((2 * k * np.sqrt(np.clip(distance / k, 0, 6))).astype(np.float32), light)
    sign = contrast(rng, canvas, step(distance), 0.5)
    body = (
        colours.vivid(rng)
        if rng.random() < 0.5
        else colours.grey(rng, 0.7, 0.95)
        if sign > 0
        else colours.grey(rng, 0.03, 0.2)
    )
    grain = np.clip(body * (1 + 0.35 * shade + 0.08 * white(rng, canvas.size))[..., None], 0, 1).astype(np.float32)
    shadow = canvas.picture * np.float32(max(0.6 - 0.2 * strength, 0.1))
    return Defect(mix(shadow, grain, step(distance)), step(distance + rng.uniform(0.3, 1.2) * k, 1.4))


def fiber(rng: Rng, canvas: Canvas, _strength: float) -> Defect:
    k = canvas.k
    path = wander(rng, inside(rng, canvas), rng.uniform(0, np.pi), rng.uniform(25, 90) * k, 0.12, rng.normal(0, 2.5))
    coverage = stroke(canvas.size, path, np.full(len(path), rng.uniform(1.1, 2.6) * k))
    sign = contrast(rng, canvas, coverage, 0.5)
    body = (
        colours.vivid(rng)
        if rng.random() < 0.3
        else colours.grey(rng, 0.85, 1.0)
        if sign > 0
        else colours.grey(rng, 0.0, 0.12)
    )
    return Defect(plain(body, canvas.size), coverage)


def spot(rng: Rng, canvas: Canvas, strength: float) -> Defect:
    distance = blob(
        rng, canvas, inside(rng, canvas), rng.uniform(3, 15) * canvas.k, rng.uniform(0.1, 0.5), rng.uniform(1, 1.6)
    )
    paint = np.clip(colours.vivid(rng) * rng.uniform(0.5, 1.2), 0, 1).astype(np.float32)
    texture = canvas.picture - canvas.picture.mean(axis=(0, 1))
    picture = np.clip(paint + texture * np.float32(rng.uniform(0.1, 0.6)), 0, 1)
    return Defect(mix(canvas.picture, picture, np.full_like(distance, min(0.75 * strength, 1.0))), step(distance, 1.6))


def fold(rng: Rng, canvas: Canvas, strength: float) -> Defect:
    """A crease: lit on one flank, shadowed on the other."""
    k, centre, angle = canvas.k, inside(rng, canvas), rng.uniform(0, np.pi)
    u, v = rotated(canvas.size, angle, centre)
    v = v + smooth(rng, canvas.size, 25 * k) * rng.uniform(0, 3) * k
    width, half = rng.uniform(1.0, 3.2) * k, rng.uniform(12, 50) * k
    end = np.clip(1 - (u / half) ** 2, 0, 1)
    flank = (v / width) * np.exp(0.5 - 0.5 * (v / width) ** 2) * np.sqrt(end)
    valley = np.exp(-((v / (0.5 * width)) ** 2)) * contrast(rng, canvas, step(width - np.abs(v)), 0.8)
    amount = rng.uniform(0.22, 0.42) * strength * (flank + rng.uniform(0.2, 0.7) * valley)
    return Defect(
        shift(canvas, amount.astype(np.float32)),
        step((1.9 * width * np.sqrt(end) - np.abs(v) - 0.8).astype(np.float32), 1.5),
    )


def burn(rng: Rng, canvas: Canvas, strength: float) -> Defect:
    """Scorched to black in the middle, brown towards the edge."""
    k, radius = canvas.k, rng.uniform(7, 21) * canvas.k
    distance = blob(rng, canvas, inside(rng, canvas), radius, rng.uniform(0.15, 0.4), rng.uniform(1, 1.8))
    distance = distance + fractal(rng, canvas.size, 7 * k, 3) * np.float32(0.12 * radius)
    brown = canvas.picture * colours.rgb(0.62, 0.42, 0.25) * np.float32(max(1.15 - 0.25 * strength, 0.3))
    ash = plain(colours.grey(rng, 0.02, 0.1), canvas.size)
    if float(canvas.picture.mean()) < 0.22:
        brown, ash = (
            canvas.picture * 1.6 + colours.rgb(0.2, 0.13, 0.08),
            plain(colours.grey(rng, 0.5, 0.7), canvas.size),
        )
    charred = step(distance - rng.uniform(0.2, 0.6) * radius, 0.7 * radius)
    return Defect(np.clip(mix(brown, ash, charred), 0, 1).astype(np.float32), step(distance + k, 3 * k))


DEFECTS: dict[str, DefectKind] = {
    "scratch": scratch,
    "crack": crack,
    "hole": hole,
    "blowhole": blowhole,
    "dent": dent,
    "stain": stain,
    "chip": chip,
    "break": fracture_break,
    "missing piece": missing_piece,
    "bend": bend,
    "particle": particle,
    "fiber": fiber,
    "spot": spot,
    "fold": fold,
    "burn": burn,
}
"""Every defect by the word captions use."""
