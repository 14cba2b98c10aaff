"""Draws defects on a part, by name: each function returns altered colours, and how far they cover the picture.

This module has defects that cover an area with a sharp outline; lines, circuit faults and soft areas are elsewhere.
Lengths are written for a picture of 128 px and scaled by `canvas.k`.
"""

from __future__ import annotations

import numpy as np

from model.pretrain.procedural import colours
from model.pretrain.procedural.alteration import Defect, DefectKind, contrast, over, shift
from model.pretrain.procedural.canvas import Canvas, Point, blob, edge, extent, inside, polygon
from model.pretrain.procedural.faults import CIRCUIT_FAULTS
from model.pretrain.procedural.lines import crack, fiber, fold, gap, scratch
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
    step,
    white,
)
from model.pretrain.procedural.wear import abrasion, discoloration, unevenness, wear


def pit(rng: Rng, canvas: Canvas, strength: float, radius: float) -> Defect:
    """A cavity: dark, deeper to one side, with a lit rim on the other."""
    k, light = canvas.k, rng.uniform(0, 6.3)
    distance = blob(rng, canvas, inside(rng, canvas), radius, rng.uniform(0.1, 0.5), rng.uniform(1, 2.2))
    depth = step(distance - 0.15 * radius, max(0.9 * radius, 1.5 * k))
    sign = contrast(rng, canvas, step(distance), 0.92)
    amount = sign * (0.18 + (0.3 if sign > 0 else 0.9) * rng.random() ** 2) * strength * (0.55 + 0.45 * depth)
    rim = relief(-radius * step(distance, 2.2 * k), light) * step(0.6 * k - distance, k)
    picture = shift(canvas, amount + rng.uniform(0.1, 0.4) * np.clip(rim, -1, 1))
    return Defect(picture, step(distance + rng.uniform(0.2, 0.8) * k, 1.4))


def hole(rng: Rng, canvas: Canvas, strength: float) -> Defect:
    return pit(rng, canvas, strength, extent(rng, canvas, 3.0, 40))


def blowhole(rng: Rng, canvas: Canvas, strength: float) -> Defect:
    first = pit(rng, canvas, strength, extent(rng, canvas, 1.5, 14))
    if rng.random() < 0.75:
        return first
    second = pit(rng, canvas, strength, extent(rng, canvas, 1.5, 5))
    return over(first, second)


def dent(rng: Rng, canvas: Canvas, strength: float) -> Defect:
    k, radius = canvas.k, extent(rng, canvas, 4, 40)
    distance = blob(rng, canvas, inside(rng, canvas), radius, 0.25, rng.uniform(1, 2.5))
    bowl = 1 - np.clip(distance / distance.max(), 0, 1)
    slope = relief((radius * np.cos(np.pi * bowl) * 0.5).astype(np.float32), rng.uniform(0, 6.3))
    sharp = np.tanh(slope * rng.uniform(0.4, 1.0))
    amount = rng.uniform(0.28, 0.5) * strength * sharp - 0.06 * strength * contrast(rng, canvas, step(distance))
    return Defect(shift(canvas, amount.astype(np.float32)), step(distance, 1.5 * k))


def stain(rng: Rng, canvas: Canvas, strength: float) -> Defect:
    k, radius = canvas.k, extent(rng, canvas, 4, 60)
    distance = blob(rng, canvas, inside(rng, canvas), radius, rng.uniform(0.2, 0.5), rng.uniform(1, 2))
    distance = distance + fractal(rng, canvas.size, 9 * k, 3) * np.float32(0.12 * radius)
    soft = rng.uniform(1.5, 4) * k
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
    distance = polygon(rng, canvas, at, extent(rng, canvas, 4, 36), rng.uniform(1, 2))
    return Defect(fracture(rng, canvas, distance, strength), step(distance, 1.4))


def shell(rng: Rng, canvas: Canvas, distance: Field, at: Point, strength: float) -> Field:
    """A broken face like a shell: rings about the blow, ridges away from it, one flank lit and one in shadow."""
    k, size = canvas.k, canvas.size
    u, v = rotated(size, rng.uniform(0, 6.3), at)
    warp = fractal(rng, size, rng.uniform(15, 40) * k, 3, 0.6)
    rings = np.sin((np.hypot(u, v) + 5 * k * warp) * 2 * np.pi / (rng.uniform(5, 18) * k))
    slope = np.clip(u / (0.5 * float(np.clip(distance.max(), 4 * k, size / 2))) / 2, -1, 1)
    face = rng.uniform(0.05, 0.25) * slope + rng.uniform(0.01, 0.08) * rings + rng.uniform(0.03, 0.12) * warp
    lip = np.exp(-((distance / (1.2 * k)) ** 2)) * rng.uniform(-0.3, 0.25)
    sign = contrast(rng, canvas, step(distance), 0.5)
    value = sign * rng.uniform(0.06, 0.3) * strength + face * min(strength, 2.0) + lip + 0.02 * white(rng, size)
    colour = canvas.picture[distance > 0].mean(axis=0) if (distance > 0).any() else canvas.picture.mean(axis=(0, 1))
    return np.clip(colour + value[..., None] * (0.35 + 0.65 * colour), 0, 1).astype(np.float32)


def fracture_break(rng: Rng, canvas: Canvas, strength: float) -> Defect:
    at = edge(rng, canvas) if rng.random() < 0.65 else inside(rng, canvas)
    radius, aspect = extent(rng, canvas, 5, 60), rng.uniform(1, 2.8)
    if rng.random() < 0.5:
        distance = polygon(rng, canvas, at, radius, aspect)
    else:
        distance = blob(rng, canvas, at, radius, rng.uniform(0.15, 0.4), aspect)
    if rng.random() < 0.6:
        return Defect(shell(rng, canvas, distance, at, strength), step(distance, 1.4))
    return Defect(fracture(rng, canvas, distance, strength), step(distance, 1.4))


def missing_piece(rng: Rng, canvas: Canvas, _strength: float) -> Defect:
    distance = polygon(rng, canvas, edge(rng, canvas), extent(rng, canvas, 5, 55), rng.uniform(1, 2))
    lip = np.exp(-((distance / (1.5 * canvas.k)) ** 2)).astype(np.float32)
    gap = mix(canvas.behind, canvas.picture * np.float32(0.35), 0.8 * lip)
    return Defect(gap, step(distance, 1.3))


def bend(rng: Rng, canvas: Canvas, strength: float) -> Defect:
    """The part pushed sideways under a bump, with the light of the bulge."""
    rows, columns = grid(canvas.size)
    centre, angle, radius = inside(rng, canvas), rng.uniform(0, 6.3), extent(rng, canvas, 6, 36)
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
    size = rng.choice([7.0, 26.0], p=[0.8, 0.2])
    for _ in range(int(rng.choice([1, 2, 4, 8], p=[0.45, 0.25, 0.2, 0.1]))):
        distance = np.maximum(
            distance, blob(rng, canvas, centre, extent(rng, canvas, 1.7, size), 0.5, rng.uniform(1, 2))
        )
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


def spot(rng: Rng, canvas: Canvas, strength: float) -> Defect:
    distance = blob(
        rng, canvas, inside(rng, canvas), extent(rng, canvas, 3, 52), rng.uniform(0.1, 0.5), rng.uniform(1, 1.6)
    )
    paint = np.clip(colours.vivid(rng) * rng.uniform(0.5, 1.2), 0, 1).astype(np.float32)
    texture = canvas.picture - canvas.picture.mean(axis=(0, 1))
    picture = np.clip(paint + texture * np.float32(rng.uniform(0.1, 0.6)), 0, 1)
    return Defect(mix(canvas.picture, picture, np.full_like(distance, min(0.75 * strength, 1.0))), step(distance, 1.6))


def burn(rng: Rng, canvas: Canvas, strength: float) -> Defect:
    """Scorched to black in the middle, brown towards the edge."""
    k, radius = canvas.k, extent(rng, canvas, 4, 52)
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
    return Defect(np.clip(mix(brown, ash, charred), 0, 1).astype(np.float32), step(distance + 0.5 * k, 2 * k))


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
    "fracture": gap,
    "wear": wear,
    "abrasion": abrasion,
    "discoloration": discoloration,
    "unevenness": unevenness,
    **CIRCUIT_FAULTS,
}
"""Every defect by the word captions use."""
