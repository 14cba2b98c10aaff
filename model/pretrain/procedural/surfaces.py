"""Surfaces that fill the frame: how materials look in close-up, each a function `(rng, size) -> (size, size, 3)`.

Lengths are written for a picture of 128 px and scaled by `size / 128`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from model.pretrain.procedural import colours
from model.pretrain.procedural.noise import (
    Field,
    Rng,
    cells,
    direction,
    fractal,
    mix,
    oriented,
    plain,
    relief,
    rotated,
    sample,
    smooth,
    step,
    tint,
    white,
)

Surface = Callable[[Rng, int], Field]


def brushed_metal(rng: Rng, size: int) -> Field:
    k, angle = size / 128, direction(rng)
    fine = oriented(rng, size, rng.uniform(25, 120) * k, rng.uniform(0.6, 1.4) * k, angle)
    broad = oriented(rng, size, 90 * k, rng.uniform(5, 15) * k, angle)
    value = 1 + rng.uniform(0.05, 0.16) * fine + rng.uniform(0.02, 0.1) * broad
    return tint(colours.metal(rng), value)


def cast_metal(rng: Rng, size: int) -> Field:
    k = size / 128
    height = fractal(rng, size, rng.uniform(3, 11) * k, 4, rng.uniform(0.5, 0.8))
    value = 1 + rng.uniform(0.05, 0.18) * relief(height, rng.uniform(0, 6.3)) + 0.06 * smooth(rng, size, 30 * k)
    return tint(colours.grey(rng, 0.18, 0.6), value + rng.uniform(0, 0.06) * white(rng, size))


def ground_ferrite(rng: Rng, size: int) -> Field:
    """Dark grey ceramic magnet with vertical grinding lines that glitter in places."""
    k, angle = size / 128, np.pi / 2 + rng.normal(0, 0.02)
    lines = oriented(rng, size, rng.uniform(40, 200) * k, rng.uniform(0.6, 1.6) * k, angle)
    bands = oriented(rng, size, 160 * k, rng.uniform(8, 30) * k, angle)
    patches = fractal(rng, size, rng.uniform(15, 45) * k, 4)
    glitter = np.maximum(lines + 0.6 * patches - rng.uniform(0.9, 2.0), 0.0) * np.abs(white(rng, size))
    value = 1 + rng.uniform(0.02, 0.1) * lines + rng.uniform(0.04, 0.22) * bands + rng.uniform(0.02, 0.14) * patches
    value = value + rng.uniform(0, 0.5) * glitter + rng.uniform(0.01, 0.06) * white(rng, size)
    return tint(colours.grey(rng, 0.22, 0.55), value)


def polished_steel(rng: Rng, size: int) -> Field:
    k, angle = size / 128, rng.uniform(0, 6.3)
    reflection = oriented(rng, size, 110 * k, rng.uniform(10, 30) * k, angle)
    value = 1 + rng.uniform(0.1, 0.3) * np.tanh(1.5 * reflection) + 0.02 * smooth(rng, size, 2 * k)
    return tint(colours.grey(rng, 0.35, 0.75), value)


def rusty_metal(rng: Rng, size: int) -> Field:
    k = size / 128
    steel = tint(colours.grey(rng, 0.25, 0.55), 1 + 0.08 * fractal(rng, size, 6 * k))
    rust = colours.between(rng, colours.rgb(0.5, 0.25, 0.1), colours.rgb(0.35, 0.17, 0.1))
    grain = 1 + 0.25 * fractal(rng, size, 4 * k, 3, 0.8)
    cover = step(fractal(rng, size, rng.uniform(15, 40) * k, 5, 0.65) + np.float32(rng.uniform(-0.6, 1.2)), 1.2)
    return mix(steel, tint(rust, grain), cover)


def wood(rng: Rng, size: int) -> Field:
    k, angle = size / 128, direction(rng)
    u, v = rotated(size, angle, (rng.uniform(-60, 60) * k, rng.uniform(-60, 60) * k))
    bend = oriented(rng, size, 60 * k, 20 * k, angle)
    rings = np.sin((v + bend * rng.uniform(1, 6) * k + 0.0015 * u * u / k) * 2 * np.pi / (rng.uniform(6, 22) * k))
    pores = oriented(rng, size, rng.uniform(12, 40) * k, 0.8 * k, angle)
    dark = rng.uniform(0.05, 0.2) * rings + rng.uniform(0.04, 0.1) * pores - 0.1 * np.maximum(pores - 1.5, 0)
    return tint(colours.between(rng, colours.rgb(0.8, 0.62, 0.4), colours.rgb(0.4, 0.24, 0.13)), 1 + dark)


def veneer(rng: Rng, size: int) -> Field:
    k, angle = size / 128, direction(rng)
    fine = oriented(rng, size, 80 * k, rng.uniform(0.8, 2) * k, angle)
    broad = oriented(rng, size, 120 * k, rng.uniform(6, 16) * k, angle)
    _, v = rotated(size, angle)
    strip = np.floor((v + size) / (rng.uniform(25, 70) * k))
    tone = np.take(rng.normal(0, 0.08, 200), strip.astype(int))
    value = 1 + 0.05 * fine + rng.uniform(0.03, 0.1) * broad + tone
    return tint(colours.between(rng, colours.rgb(0.85, 0.7, 0.5), colours.rgb(0.6, 0.42, 0.27)), value)


def fabric(rng: Rng, size: int) -> Field:
    k, angle = size / 128, direction(rng)
    u, v = rotated(size, angle)
    wobble = smooth(rng, size, 20 * k) * rng.uniform(0, 1.2) * k
    period = rng.uniform(3.0, 9.0) * k
    warp, weft = (u + wobble) * np.pi / period, (v + wobble) * np.pi / period
    checker = np.sin(warp) * np.sin(weft) if rng.random() < 0.6 else np.sin(warp + weft)
    threads = 0.5 * (np.abs(np.sin(warp)) + np.abs(np.sin(weft)))
    value = 0.85 + rng.uniform(0.1, 0.3) * checker + rng.uniform(0.1, 0.35) * threads
    value = value + rng.uniform(0.02, 0.08) * white(rng, size) + 0.05 * smooth(rng, size, 25 * k)
    return tint(colours.vivid(rng), value)


def carpet(rng: Rng, size: int) -> Field:
    k = size / 128
    tufts = smooth(rng, size, rng.uniform(1.2, 3.5) * k)
    value = 0.9 + rng.uniform(0.12, 0.3) * tufts + 0.1 * white(rng, size) + 0.06 * fractal(rng, size, 25 * k, 2)
    first, second = colours.vivid(rng), colours.vivid(rng)
    blend = step(smooth(rng, size, rng.uniform(1.5, 4) * k), 1.5) * np.float32(rng.uniform(0, 0.6))
    return mix(tint(first, value), tint(second, value), blend)


def leather(rng: Rng, size: int) -> Field:
    k = size / 128
    near, next_nearest, _ = cells(rng, size, rng.uniform(3.5, 9) * k)
    crease = np.exp(-((next_nearest - near) ** 2) / (2 * (1.0 * k) ** 2))
    pebble = relief(np.sqrt(np.maximum(next_nearest - near, 0)), rng.uniform(0, 6.3))
    value = 1 - rng.uniform(0.1, 0.35) * crease + rng.uniform(0.05, 0.2) * pebble
    value = value + 0.08 * fractal(rng, size, 30 * k, 3) + 0.03 * white(rng, size)
    brown = colours.between(rng, colours.rgb(0.55, 0.33, 0.2), colours.rgb(0.2, 0.13, 0.1))
    return tint(brown if rng.random() < 0.6 else colours.vivid(rng), value)


def ceramic_tile(rng: Rng, size: int) -> Field:
    k, angle = size / 128, float(rng.normal(0, 0.1))
    body = tint(
        colours.grey(rng, 0.55, 0.9) * colours.vary(rng, colours.rgb(1, 0.97, 0.92)), 1 + 0.02 * white(rng, size)
    )
    marble = np.abs(fractal(rng, size, rng.uniform(20, 50) * k, 5, 0.6))
    body = mix(body, plain(colours.vivid(rng) * 0.5, size), np.exp(-marble / 0.05) * np.float32(rng.uniform(0, 0.5)))
    u, v = rotated(size, angle, (rng.uniform(-40, 40) * k, rng.uniform(-40, 40) * k))
    pitch = rng.uniform(45, 130) * k
    gap = np.minimum(np.abs((u + 9.5 * pitch) % pitch - pitch / 2), np.abs((v + 9.5 * pitch) % pitch - pitch / 2))
    return mix(plain(colours.grey(rng, 0.25, 0.7), size), body, step(gap - rng.uniform(0.8, 2.5) * k, 1.5))


def terrazzo(rng: Rng, size: int) -> Field:
    k = size / 128
    near, next_nearest, index = cells(rng, size, rng.uniform(6, 18) * k)
    palette = np.stack([colours.vary(rng, colours.grey(rng, 0.2, 0.9), 0.08) for _ in range(6)])
    chips = palette[rng.integers(0, 6, 1500)[index]]
    inside = step(next_nearest - near - np.float32(rng.uniform(1.5, 5)) * (1 + 0.4 * smooth(rng, size, 5 * k)), 1.5)
    return mix(tint(colours.grey(rng, 0.4, 0.85), 1 + 0.05 * white(rng, size)), chips, inside)


def concrete(rng: Rng, size: int) -> Field:
    k = size / 128
    value = 1 + rng.uniform(0.04, 0.14) * fractal(rng, size, rng.uniform(20, 50) * k, 6, 0.7)
    pits = np.maximum(smooth(rng, size, 2.2 * k) - rng.uniform(1.8, 2.8), 0)
    value = value - 0.5 * pits + rng.uniform(0.02, 0.08) * white(rng, size)
    return tint(colours.grey(rng, 0.35, 0.8) * colours.rgb(1.0, 0.98, 0.94), value)


def wire_mesh(rng: Rng, size: int) -> Field:
    k = size / 128
    u, v = rotated(size, rng.choice([0.0, np.pi / 4]) + rng.normal(0, 0.06))
    bend = smooth(rng, size, 25 * k) * rng.uniform(0, 1.5) * k
    pitch, thick = rng.uniform(7, 24) * k, rng.uniform(1.0, 2.8) * k
    across = np.abs((u + bend + 99 * pitch) % pitch - pitch / 2)
    down = np.abs((v + bend + 99 * pitch) % pitch - pitch / 2)
    wire = np.maximum(step(thick - across), step(thick - down))
    shine = 0.6 + 0.7 * np.exp(-((np.minimum(across, down) / (0.6 * thick)) ** 2))
    ground = tint(colours.grey(rng, 0.05, 0.8), 1 + 0.05 * fractal(rng, size, 20 * k))
    metal = colours.metal(rng)
    contrast = metal * (1.7 if ground.mean() < 0.35 else 0.5)
    return mix(ground, tint(np.clip(contrast, 0, 1).astype(np.float32), shine), wire)


def moulded_plastic(rng: Rng, size: int) -> Field:
    k = size / 128
    texture = relief(smooth(rng, size, rng.uniform(1.0, 3.0) * k), rng.uniform(0, 6.3))
    value = 1 + rng.uniform(0.0, 0.1) * texture + rng.uniform(0.02, 0.1) * smooth(rng, size, 50 * k)
    if rng.random() < 0.4:
        _, v = rotated(size, direction(rng), (rng.uniform(-20, 20) * k, 0))
        value = value + rng.uniform(0.1, 0.3) * np.sin(v * 2 * np.pi / (rng.uniform(12, 40) * k)) ** 9
    return tint(colours.vivid(rng), value)


def painted_panel(rng: Rng, size: int) -> Field:
    k = size / 128
    peel = relief(smooth(rng, size, rng.uniform(2.5, 6) * k), rng.uniform(0, 6.3))
    value = 1 + rng.uniform(0.0, 0.06) * peel + rng.uniform(0.03, 0.15) * smooth(rng, size, 60 * k)
    return tint(colours.vivid(rng), value)


def foam(rng: Rng, size: int) -> Field:
    k = size / 128
    near, next_nearest, index = cells(rng, size, rng.uniform(4, 10) * k)
    depth = rng.uniform(0.15, 0.5, 1500)[index]
    value = 1 - depth * step(next_nearest - near - 1.5 * k, 3 * k) + 0.06 * white(rng, size)
    return tint(colours.vivid(rng), value)


def rubber(rng: Rng, size: int) -> Field:
    k = size / 128
    value = 1 + rng.uniform(0.08, 0.25) * relief(fractal(rng, size, rng.uniform(2, 6) * k, 2), rng.uniform(0, 6.3))
    if rng.random() < 0.4:
        u, v = rotated(size, direction(rng))
        pitch = rng.uniform(8, 22) * k
        value = value + 0.25 * np.sign(np.sin(u * np.pi / pitch)) * np.sign(np.sin(v * np.pi / pitch))
    return tint(colours.grey(rng, 0.12, 0.35), value)


def paper(rng: Rng, size: int) -> Field:
    k = size / 128
    fibres = oriented(rng, size, 6 * k, 1.0 * k, rng.uniform(0, 3.2)) + oriented(
        rng, size, 6 * k, 1.0 * k, rng.uniform(0, 3.2)
    )
    value = 1 + rng.uniform(0.01, 0.035) * fibres + 0.03 * smooth(rng, size, 30 * k)
    return tint(colours.vary(rng, colours.rgb(0.86, 0.84, 0.8)), value)


def cardboard(rng: Rng, size: int) -> Field:
    k, angle = size / 128, direction(rng)
    _, v = rotated(size, angle)
    flutes = np.sin(v * 2 * np.pi / (rng.uniform(5, 12) * k))
    specks = oriented(rng, size, 4 * k, 1.0 * k, angle + 0.6)
    value = 1 + rng.uniform(0.01, 0.07) * flutes + 0.05 * specks + 0.05 * smooth(rng, size, 30 * k)
    return tint(colours.between(rng, colours.rgb(0.72, 0.55, 0.37), colours.rgb(0.58, 0.44, 0.3)), value)


def circuit_board(rng: Rng, size: int) -> Field:
    k = size / 128
    board = colours.between(rng, colours.rgb(0.05, 0.35, 0.2), colours.rgb(0.06, 0.2, 0.3))
    pitch = max(int(rng.uniform(6, 12) * k), 3)
    count = size // pitch + 2
    rows, columns = np.arange(size)[:, None] // pitch, np.arange(size)[None, :] // pitch
    runs = rng.random((count, count)) < 0.5
    runs[:, rng.integers(0, count, count // 3)] = True
    row_phase = np.abs(np.arange(size) % pitch - pitch / 2)[:, None]
    column_phase = np.abs(np.arange(size) % pitch - pitch / 2)[None, :]
    width = np.float32(rng.uniform(0.14, 0.26) * pitch)
    picked = runs[rows, columns]
    track = np.where(
        picked, step((width - row_phase).astype(np.float32)), step((width - column_phase).astype(np.float32))
    )
    picture = mix(tint(board, 1 + 0.04 * white(rng, size)), plain(board * 1.8 + 0.05, size), track.astype(np.float32))
    pads = (rng.random((count, count)) < 0.15)[rows, columns]
    radius = np.hypot(row_phase, column_phase).astype(np.float32)
    ring = step(np.float32(0.42 * pitch) - radius) * pads
    picture = mix(
        picture, plain(colours.between(rng, colours.rgb(0.85, 0.7, 0.35), colours.rgb(0.8, 0.8, 0.8)), size), ring
    )
    picture = mix(picture, plain(colours.rgb(0.04, 0.04, 0.04), size), step(np.float32(0.18 * pitch) - radius) * pads)
    u, v = rotated(size, float(rng.normal(0, 0.04)))
    middle = np.float32((size - 1) / 2)
    return sample(picture, v + middle, u + middle)


SURFACES: dict[str, Surface] = {
    "brushed metal": brushed_metal,
    "cast metal": cast_metal,
    "magnet tile": ground_ferrite,
    "polished steel": polished_steel,
    "rusty metal": rusty_metal,
    "wood": wood,
    "veneer": veneer,
    "fabric": fabric,
    "carpet": carpet,
    "leather": leather,
    "ceramic tile": ceramic_tile,
    "terrazzo": terrazzo,
    "concrete": concrete,
    "wire mesh": wire_mesh,
    "plastic": moulded_plastic,
    "painted panel": painted_panel,
    "foam": foam,
    "rubber": rubber,
    "paper": paper,
    "cardboard": cardboard,
    "circuit board": circuit_board,
}
"""Every surface by the name captions use."""
