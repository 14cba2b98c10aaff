"""Draws defects that follow a line: scratches, cracks, gaps, fibres and creases."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model.pretrain.procedural import colours
from model.pretrain.procedural.alteration import Defect, contrast, shift
from model.pretrain.procedural.canvas import Canvas, border, edge, extent, inside, ragged, stroke, wander
from model.pretrain.procedural.noise import (
    Field,
    Rng,
    direction,
    fractal,
    mix,
    plain,
    rotated,
    smooth,
    step,
    white,
)

Path = NDArray[np.float64]


def _empty(canvas: Canvas) -> Field:
    return np.zeros((canvas.size, canvas.size), dtype=np.float32)


def scratch(rng: Rng, canvas: Canvas, strength: float) -> Defect:
    """One or several nearly parallel lines, bright or dark: short ones, and ones longer than the frame."""
    k, coverage = canvas.k, _empty(canvas)
    angle, centre = direction(rng) if rng.random() < 0.3 else rng.uniform(0, np.pi), inside(rng, canvas)
    length, width = extent(rng, canvas, 14, 240), extent(rng, canvas, 0.9, 4.5)
    for _ in range(int(rng.choice([1, 2, 3, 6], p=[0.6, 0.2, 0.12, 0.08]))):
        own = length * rng.uniform(0.5, 1.1)
        path = wander(rng, centre, angle + rng.normal(0, 0.12), own, 0.02, rng.normal(0, 0.5))
        taper = np.sin(np.linspace(0.15, np.pi - 0.15, len(path))) ** 0.5
        coverage = np.maximum(coverage, stroke(canvas.size, path, taper * width * rng.uniform(0.6, 1.1)))
        centre = (centre[0] + rng.normal(0, 7) * k, centre[1] + rng.normal(0, 7) * k)
    sign = contrast(rng, canvas, coverage, 0.4)
    uneven = 1 + 0.3 * smooth(rng, canvas.size, 6 * k)
    amount = sign * (0.1 + 0.4 * rng.random() ** 1.5) * strength * uneven
    return Defect(shift(canvas, amount.astype(np.float32)), coverage)


def _course(rng: Rng, canvas: Canvas, rough: float) -> Path:
    """Where a crack runs: from border to border, from an edge inwards, or within the picture."""
    kind = rng.random()
    if kind < 0.5:
        side = int(rng.integers(4))
        opposite = side + int(rng.choice([1, 2, 2, 2, 3]))
        return ragged(rng, canvas, border(rng, canvas, side), border(rng, canvas, opposite), rough)
    at, angle = inside(rng, canvas), direction(rng)
    if kind < 0.75:
        start = edge(rng, canvas)
        angle = float(np.arctan2(at[0] - start[0], at[1] - start[1])) + float(rng.normal(0, 0.3))
        at = start
    length = extent(rng, canvas, 15, 130)
    offset = (length * np.sin(angle), length * np.cos(angle))
    if kind >= 0.75:
        at = (at[0] - offset[0] / 2, at[1] - offset[1] / 2)
    return ragged(rng, canvas, at, (at[0] + offset[0], at[1] + offset[1]), rough)


def _branch(rng: Rng, canvas: Canvas, path: Path, rough: float) -> Path:
    """A crack that leaves `path`: to the border or to a shorter end."""
    joint = path[rng.integers(len(path))]
    if rng.random() < 0.4:
        end = np.asarray(border(rng, canvas, int(rng.integers(4))))
    else:
        heading = path[-1] - path[0]
        angle = np.arctan2(heading[0], heading[1]) + rng.choice([-1, 1]) * rng.uniform(0.4, 1.4)
        end = joint + extent(rng, canvas, 8, 80) * np.array([np.sin(angle), np.cos(angle)])
    return ragged(rng, canvas, (joint[0], joint[1]), (end[0], end[1]), rough)


def _thickness(rng: Rng, width: float, k: float, points: int, *, tip: float) -> NDArray[np.float64]:
    """Widths along a crack: swelling, jagged, and narrowing to `tip` of the width at its end."""
    knots = max(points // int(16 * max(k, 0.5)), 4)
    swell = np.interp(np.arange(points), np.linspace(0, points, knots), rng.uniform(0.55, 1.3, knots))
    jag = np.interp(np.arange(points), np.linspace(0, points, points // 3 + 2), rng.normal(1, 0.22, points // 3 + 2))
    widths = width * swell * np.clip(jag, 0.4, 1.6) * np.minimum(1, np.linspace(3, tip, points))
    return np.maximum(widths, 0.85)


def crack(rng: Rng, canvas: Canvas, strength: float) -> Defect:
    """A crack from hairline to rift, at times branching into a network, at times open to what lies behind."""
    if rng.random() < (0.35 if float(canvas.distance.min()) < 0 else 0.1):
        return gap(rng, canvas, strength)
    k, rough = canvas.k, rng.uniform(0.05, 0.2)
    width = extent(rng, canvas, 1.0, 5.0)
    paths = [_course(rng, canvas, rough)]
    for _ in range(int(rng.choice([0, 1, 2, 3, 6], p=[0.5, 0.2, 0.14, 0.1, 0.06]))):
        paths.append(_branch(rng, canvas, paths[rng.integers(len(paths))], rough))
    coverage = _empty(canvas)
    for number, path in enumerate(paths):
        own = width if number == 0 else width * rng.uniform(0.45, 0.95)
        tip = rng.uniform(0.25, 1.2) if number == 0 else 0.3
        coverage = np.maximum(coverage, stroke(canvas.size, path, _thickness(rng, own, k, len(path), tip=tip)))
    sign = contrast(rng, canvas, coverage, 0.93)
    depth = np.clip(1 + 0.35 * smooth(rng, canvas.size, 9 * k) + 0.2 * smooth(rng, canvas.size, 1.5 * k), 0.3, 1.8)
    amount = sign * (0.08 + (0.4 if sign > 0 else 0.8) * rng.random() ** 2.3) * strength * depth
    return Defect(shift(canvas, amount.astype(np.float32)), coverage)


def gap(rng: Rng, canvas: Canvas, strength: float) -> Defect:
    """The part broken in two: between torn edges, parallel or opening like a wedge, shows what lies behind."""
    size, k = canvas.size, canvas.k
    at, angle = inside(rng, canvas, 10.0), float(rng.uniform(0, 2 * np.pi))
    u, v = rotated(size, angle, at)
    reach, rough = 0.8 * size, rng.uniform(0.05, 0.16)
    line = ragged(rng, canvas, (0.0, -reach), (0.0, reach), rough)
    middle = np.interp(u, line[:, 1], line[:, 0] - np.interp(0.0, line[:, 1], line[:, 0])).astype(np.float32)
    width = extent(rng, canvas, 1.6, 24)
    opening = rng.uniform(0, 1.2) * width / (40 * k)
    wide = width + opening * u
    if rng.random() < 0.45:
        wide = np.minimum(wide, (u + rng.uniform(0, 45) * k) * rng.uniform(0.12, 0.5))
    crumbs = fractal(rng, size, 6 * k, 3, 0.7) * min(0.12 * width + 0.5 * k, 1.6 * k)
    distance = (wide / 2 - np.abs(v - middle) + crumbs).astype(np.float32)
    wall = step(distance - rng.uniform(0.5, 2.5) * k * (1 + 0.5 * smooth(rng, size, 5 * k)), 1.5 * k)
    broken = canvas.picture * np.float32(rng.uniform(0.35, 0.8)) * (1 + 0.15 * white(rng, size))[..., None]
    side = np.where(v > middle, wall, 1) if rng.random() < 0.6 else wall
    shadow = 1 - rng.uniform(0.15, 0.6) * np.exp(-np.maximum(distance, 0) / (rng.uniform(1.5, 5) * k))
    behind = canvas.behind * (shadow / max(strength**0.5, 1.0)).astype(np.float32)[..., None]
    return Defect(np.clip(mix(broken, behind, side.astype(np.float32)), 0, 1), step(distance, 1.3))


def fiber(rng: Rng, canvas: Canvas, _strength: float) -> Defect:
    path = wander(
        rng, inside(rng, canvas), rng.uniform(0, np.pi), extent(rng, canvas, 18, 150), 0.12, rng.normal(0, 2.5)
    )
    coverage = stroke(canvas.size, path, np.full(len(path), extent(rng, canvas, 1.0, 3.5)))
    sign = contrast(rng, canvas, coverage, 0.5)
    body = (
        colours.vivid(rng)
        if rng.random() < 0.3
        else colours.grey(rng, 0.85, 1.0)
        if sign > 0
        else colours.grey(rng, 0.0, 0.12)
    )
    return Defect(plain(body, canvas.size), coverage)


def fold(rng: Rng, canvas: Canvas, strength: float) -> Defect:
    """A crease: lit on one flank, shadowed on the other."""
    k, centre, angle = canvas.k, inside(rng, canvas), rng.uniform(0, np.pi)
    u, v = rotated(canvas.size, angle, centre)
    v = v + smooth(rng, canvas.size, 25 * k) * rng.uniform(0, 3) * k
    width, half = extent(rng, canvas, 0.9, 5.0), extent(rng, canvas, 10, 130)
    end = np.clip(1 - (u / half) ** 2, 0, 1)
    flank = (v / width) * np.exp(0.5 - 0.5 * (v / width) ** 2) * np.sqrt(end)
    valley = np.exp(-((v / (0.5 * width)) ** 2)) * contrast(rng, canvas, step(width - np.abs(v)), 0.8)
    amount = rng.uniform(0.22, 0.42) * strength * (flank + rng.uniform(0.2, 0.7) * valley)
    return Defect(
        shift(canvas, amount.astype(np.float32)),
        step((1.9 * width * np.sqrt(end) - np.abs(v) - 0.8).astype(np.float32), 1.5),
    )
