"""Draws surfaces that fill the frame: materials in close-up, each a function `(rng, size) -> (size, size, 3)`.

Lengths are written for a picture of 128 px and scaled by `size / 128`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from model.pretrain.procedural import colours
from model.pretrain.procedural.circuits import layout
from model.pretrain.procedural.noise import (
    Field,
    Rng,
    cells,
    chroma,
    direction,
    fractal,
    mix,
    oriented,
    plain,
    relief,
    rotated,
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
    """Grey ceramic magnet under a lamp: fine vertical grinding lines, soft shine and shade, worn bright sides."""
    k, angle = size / 128, np.pi / 2 + rng.normal(0, 0.015)
    lines = oriented(rng, size, rng.uniform(30, 200) * k, rng.uniform(0.5, 1.0) * k, angle)
    bands = oriented(rng, size, 250 * k, rng.uniform(5, 30) * k, angle)
    cloud = smooth(rng, size, rng.uniform(35, 80) * k, rng.uniform(18, 50) * k)
    smudge = fractal(rng, size, rng.uniform(10, 30) * k, 3)
    fine = smooth(rng, size, rng.uniform(1.0, 4.0) * k, 0.7 * k)
    streaks = np.maximum(lines + 0.5 * cloud + 0.4 * fine - rng.uniform(1.2, 2.2), 0.0)
    value = rng.uniform(0.02, 0.07) * lines + rng.uniform(0.02, 0.08) * bands + rng.uniform(0.01, 0.05) * smudge
    value = value + rng.uniform(0.04, 0.26) * cloud + rng.uniform(0.02, 0.05) * fine + rng.uniform(0, 0.2) * streaks
    value = np.exp(value)
    if rng.random() < 0.45:
        _, v = rotated(size, angle, (0.0, rng.uniform(-3, 3) * k))
        from_side = np.float32(size / 2 - rng.uniform(0, 4) * k) - np.abs(v)
        worn = np.exp(-(((from_side - rng.uniform(2, 7) * k) / (rng.uniform(1.0, 3.0) * k)) ** 2))
        value = value * (1 + rng.uniform(0.1, 0.5) * worn * (1 + 0.2 * fine)) * (0.2 + 0.8 * step(from_side, 2.5 * k))
    neutral = colours.grey(rng, 0.28, 0.6)
    return tint(neutral + np.float32(0.7) * (neutral.mean() - neutral), value)


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


def _aggregate(rng: Rng, size: int, scale: float) -> Field:
    """Brightness and colour of stones about `scale` pixels wide pressed into a binder, as a factor around 1."""
    k, slant = size / 128, float(np.exp(rng.normal(0, 0.17)))
    stones = smooth(rng, size, scale * slant, scale / slant)
    lit = relief(stones, rng.uniform(0, 6.3)) * np.float32(scale)
    value = rng.uniform(0.02, 0.08) * stones + rng.uniform(0.02, 0.1) * lit + rng.uniform(0.01, 0.06) * white(rng, size)
    value = value + rng.uniform(0, 0.25) * np.maximum(stones - rng.uniform(1.4, 2.2), 0)
    value = value - rng.uniform(0, 0.25) * np.maximum(-stones - rng.uniform(1.2, 2.0), 0)
    shade = 1 + value + rng.uniform(0, 0.06) * smooth(rng, size, 45 * k)
    hue = rng.uniform(0, 0.015) * chroma(rng, size, 60 * k)
    if rng.random() < 0.6:
        hue = hue + rng.uniform(0, 0.04) * chroma(rng, size, scale)
    return (shade[..., None] + hue).astype(np.float32)


def asphalt(rng: Rng, size: int) -> Field:
    """A road: fine stones in tar, soft stains, now and then worn paint."""
    k = size / 128
    warmth = rng.normal(0, 0.04) * colours.rgb(1.0, 0.0, -1.0)
    picture: Field = rng.uniform(0.28, 0.62) * (1 + warmth) * _aggregate(rng, size, rng.uniform(0.7, 2.0) * k)
    if rng.random() < 0.3:
        stain = step(fractal(rng, size, rng.uniform(15, 40) * k, 3) - np.float32(rng.uniform(0.6, 1.6)), 1.0)
        picture = mix(picture, picture * np.float32(rng.uniform(0.55, 1.25)), stain)
    if rng.random() < 0.12:
        _, v = rotated(size, direction(rng), (rng.uniform(-60, 60) * k, rng.uniform(-60, 60) * k))
        worn = fractal(rng, size, 8 * k, 4, 0.7) + np.float32(rng.uniform(0.6, 2.5))
        line = step(rng.uniform(8, 25) * k - np.abs(v) + smooth(rng, size, 3 * k), 2 * k) * step(worn, 0.6)
        picture = mix(picture, tint(colours.mild(rng, 0.75, 0.95), 1 + 0.04 * white(rng, size)), line)
    return picture


def pavement(rng: Rng, size: int) -> Field:
    """Paving stones or slabs with sanded joints."""
    k = size / 128
    u, v = rotated(size, direction(rng), (rng.uniform(-40, 40) * k, rng.uniform(-40, 40) * k))
    tall = rng.uniform(24, 70) * k
    wide = tall * rng.uniform(1.0, 2.2)
    row = np.floor(v / tall)
    shifted = u + (row % 2) * (wide * 0.5 * float(rng.random() < 0.5))
    along, across = shifted % wide, v % tall
    gap = np.minimum(np.minimum(along, wide - along), np.minimum(across, tall - across)) + 0.5 * smooth(
        rng, size, 3 * k
    )
    tone = rng.normal(0, 0.05, 997)[(row * 31 + np.floor(shifted / wide)).astype(int) % 997].astype(np.float32)
    stone = colours.mild(rng, 0.35, 0.75) * _aggregate(rng, size, rng.uniform(0.8, 2.0) * k) * (1 + tone)[..., None]
    joint = tint(colours.mild(rng, 0.1, 0.5), 1 + 0.15 * white(rng, size))
    return mix(joint, stone, step(gap - rng.uniform(0.8, 2.0) * k, 2 * k))


def granite(rng: Rng, size: int) -> Field:
    """Crystals of three or four minerals, polished."""
    k = size / 128
    picture = tint(colours.mild(rng, 0.3, 0.85), 1 + 0.06 * smooth(rng, size, 3 * k))
    for _ in range(int(rng.integers(2, 4))):
        crystals = fractal(rng, size, rng.uniform(1.5, 7) * k, 2, 0.7) - np.float32(rng.uniform(0.2, 1.4))
        mineral = tint(colours.mild(rng, 0.05, 0.95), 1 + 0.08 * white(rng, size))
        picture = mix(picture, mineral, step(crystals, 0.7) * np.float32(rng.uniform(0.4, 1.0)))
    return picture


def stone(rng: Rng, size: int) -> Field:
    """Split or sawn stone: coarse relief, layered tones."""
    k, angle = size / 128, rng.uniform(0, 3.2)
    height = fractal(rng, size, rng.uniform(6, 25) * k, 5, rng.uniform(0.5, 0.75))
    layers = oriented(rng, size, 60 * k, rng.uniform(4, 15) * k, angle)
    value = 1 + rng.uniform(0.05, 0.3) * relief(height, rng.uniform(0, 6.3)) + rng.uniform(0, 0.12) * layers
    hue = rng.uniform(0, 0.025) * chroma(rng, size, rng.uniform(8, 40) * k)
    return (colours.mild(rng, 0.25, 0.8) * (value[..., None] + hue)).astype(np.float32)


def sandpaper(rng: Rng, size: int) -> Field:
    """Dense coloured grit on a sheet."""
    k = size / 128
    grit = smooth(rng, size, rng.uniform(0.6, 1.8) * k)
    glint = np.maximum(grit - rng.uniform(1.0, 2.2), 0)
    value = 1 + rng.uniform(0.06, 0.2) * grit + rng.uniform(0.1, 0.5) * glint + 0.04 * smooth(rng, size, 40 * k)
    brown = colours.between(rng, colours.rgb(0.62, 0.42, 0.25), colours.rgb(0.35, 0.18, 0.14))
    base = brown if rng.random() < 0.4 else colours.mild(rng, 0.15, 0.7) if rng.random() < 0.7 else colours.vivid(rng)
    return (base * (value[..., None] + rng.uniform(0, 0.1) * chroma(rng, size, 1.0 * k))).astype(np.float32)


def glass(rng: Rng, size: int) -> Field:
    """A pane: broad reflections of what stands around, faint streaks, a tint of green or grey."""
    k, angle = size / 128, rng.uniform(0, 6.3)
    u, v = rotated(size, angle)
    light = rng.uniform(0.05, 0.25) * np.tanh(smooth(rng, size, 60 * k) * 2) + rng.uniform(-0.25, 0.25) * u / size
    edge = step(v - rng.uniform(-60, 60) * k + 2 * k * smooth(rng, size, 40 * k), rng.uniform(1, 15) * k)
    streaks = oriented(rng, size, 50 * k, 3 * k, direction(rng))
    value = 1 + light + rng.uniform(0, 0.2) * edge + rng.uniform(0.005, 0.03) * streaks + 0.008 * white(rng, size)
    return tint(colours.between(rng, colours.rgb(0.62, 0.72, 0.7), colours.rgb(0.25, 0.3, 0.33)), value)


def mosaic(rng: Rng, size: int) -> Field:
    """Small square tiles in a grid, each a shade of its own."""
    k = size / 128
    pitch, joint = rng.uniform(9, 30) * k, rng.uniform(0.7, 1.6) * k
    u, v = rotated(size, direction(rng), (rng.uniform(-9, 9) * k, rng.uniform(-9, 9) * k))
    column, row = np.floor(u / pitch).astype(int), np.floor(v / pitch).astype(int)
    first, second = colours.vivid(rng), colours.mild(rng, 0.2, 0.9)
    blend = np.clip(rng.normal(rng.random(), 0.3, 997), 0, 1)[(row * 37 + column) % 997].astype(np.float32)
    gap = np.minimum(pitch / 2 - np.abs(u % pitch - pitch / 2), pitch / 2 - np.abs(v % pitch - pitch / 2))
    tile = mix(plain(first, size), plain(second, size), blend) * (1 + 0.04 * smooth(rng, size, 5 * k))[..., None]
    lip = 1 + 0.2 * relief(np.minimum(gap, 3 * k), rng.uniform(0, 6.3))
    grout = tint(colours.mild(rng, 0.15, 0.9), 1 + 0.06 * white(rng, size))
    return mix(grout, tile * lip[..., None].astype(np.float32), step(gap - joint))


def striped_cloth(rng: Rng, size: int) -> Field:
    """Woven threads in stripes of a few colours."""
    k, angle = size / 128, direction(rng)
    u, v = rotated(size, angle)
    v = v + smooth(rng, size, 40 * k) * np.float32(rng.uniform(0, 1.5) * k)
    palette = np.stack([colours.vivid(rng) if rng.random() < 0.6 else colours.mild(rng, 0.1, 0.95) for _ in range(3)])
    order = rng.integers(0, 3, int(rng.integers(3, 7)))
    pitch = rng.uniform(4, 20) * k
    picture = palette[order[np.floor(v / pitch).astype(int) % len(order)]]
    thread = rng.uniform(2.2, 4.5) * k
    weave = np.sin(u * 2 * np.pi / thread) * np.sin(v * 2 * np.pi / thread)
    value = 1 + rng.uniform(0.03, 0.15) * weave + rng.uniform(0.02, 0.06) * white(rng, size)
    return (picture * (value + 0.04 * smooth(rng, size, 30 * k))[..., None]).astype(np.float32)


def solar_cell(rng: Rng, size: int) -> Field:
    """Silicon behind glass: crystal grains or one even blue-black, thin fingers, broad bus bars."""
    k, turn = size / 128, float(rng.choice([0.0, np.pi / 2])) + float(rng.normal(0, 0.01))
    base = colours.between(rng, colours.rgb(0.1, 0.16, 0.35), colours.rgb(0.12, 0.13, 0.17))
    value = 1 + 0.08 * smooth(rng, size, 40 * k) + 0.03 * white(rng, size)
    if rng.random() < 0.6:
        _, _, index = cells(rng, size, rng.uniform(10, 30) * k)
        value = value * (1 + rng.normal(0, rng.uniform(0.1, 0.3), 1500).astype(np.float32)[index])
    u, v = rotated(size, turn, (rng.uniform(-20, 20) * k, rng.uniform(-20, 20) * k))
    silver = plain(colours.grey(rng, 0.5, 0.85), size)
    pitch, apart = rng.uniform(4, 9) * k, rng.uniform(40, 75) * k
    finger = step(rng.uniform(0.5, 1.0) * k - np.abs(u % pitch - pitch / 2)) * np.float32(rng.uniform(0.15, 0.6))
    bar = step(rng.uniform(1.5, 4) * k - np.abs(v % apart - apart / 2))
    return mix(tint(base * np.float32(rng.uniform(0.8, 2.5)), value), silver, np.maximum(finger, bar))


def crumb(rng: Rng, size: int) -> Field:
    """The crust of a biscuit: grainy golden crumb with soft folds and tears, at times with dark chips."""
    k = size / 128
    scale = rng.uniform(6, 24) * k
    height, fine = fractal(rng, size, scale, 3, 0.5), smooth(rng, size, rng.uniform(0.9, 2.2) * k)
    value = 1 + rng.uniform(0.01, 0.035) * relief(height * np.float32(scale / k), rng.uniform(0.8, 2.4))
    value = value + rng.uniform(0.03, 0.08) * relief(fine, 1.5) + rng.uniform(0.0, 0.05) * fine
    value = value + rng.uniform(0.01, 0.05) * white(rng, size)
    seam = np.abs(fractal(rng, size, rng.uniform(18, 50) * k, 3, 0.5))
    torn = step(smooth(rng, size, 18 * k) - np.float32(rng.uniform(0.1, 1.4)), 1.2)
    width = np.float32(rng.uniform(0.08, 0.22))
    value = value - np.exp(-((seam / width) ** 2)) * np.float32(rng.uniform(0.15, 0.45)) * torn
    golden = colours.between(rng, colours.rgb(0.87, 0.72, 0.5), colours.rgb(0.62, 0.45, 0.28))
    browned = step(smooth(rng, size, 20 * k) + np.float32(0.4) * height, 3.0) * np.float32(rng.uniform(0.1, 0.7))
    picture = mix(tint(golden, value), tint(golden * colours.rgb(0.92, 0.82, 0.68), value), browned)
    if rng.random() < 0.65:
        lump = smooth(rng, size, rng.uniform(4.5, 9) * k) - np.float32(rng.uniform(1.6, 2.4))
        light = 1 + 0.9 * np.clip(relief(np.minimum(lump, 0.6) * np.float32(8 * k), 1.5), -0.4, 1.5)
        chip = tint(colours.vary(rng, colours.rgb(0.27, 0.16, 0.13)), light * (1 + 0.1 * fine))
        picture = mix(picture * (1 - 0.25 * step(lump + 0.2, 0.4))[..., None], chip, step(lump, 0.15))
    return picture


def printed_circuit(rng: Rng, size: int) -> Field:
    """A board as inspection machines see it: copper and base in two flat tones, mostly black and white."""
    copper = step(layout(rng, size).copper)
    if rng.random() < 0.75:
        first, second = colours.rgb(1, 1, 1), colours.rgb(0, 0, 0)
    else:
        first, second = colours.mild(rng, 0.65, 1.0), colours.vivid(rng) * np.float32(rng.uniform(0.1, 0.5))
    if rng.random() < 0.35:
        first, second = second, first
    return mix(plain(first, size), plain(second, size), copper)


def circuit_board(rng: Rng, size: int) -> Field:
    """A board with solder mask over its tracks and bare pads."""
    k = size / 128
    board = colours.between(rng, colours.rgb(0.05, 0.35, 0.2), colours.rgb(0.06, 0.2, 0.3))
    found = layout(rng, size)
    body = tint(board, 1 + 0.04 * white(rng, size) + 0.06 * smooth(rng, size, 30 * k))
    shine = 1 + 0.08 * relief(np.clip(found.tracks, -2 * k, 2 * k), rng.uniform(0, 6.3))
    picture = mix(body, tint(board * np.float32(rng.uniform(1.3, 2.0)) + np.float32(0.05), shine), step(found.tracks))
    tin = colours.between(rng, colours.rgb(0.85, 0.7, 0.35), colours.rgb(0.8, 0.8, 0.8))
    picture = mix(picture, tint(tin, 1 + 0.1 * smooth(rng, size, 3 * k)), step(found.pads))
    return mix(picture, plain(colours.rgb(0.04, 0.04, 0.04), size), step(found.holes))


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
    "printed circuit": printed_circuit,
    "etched circuit": printed_circuit,
    "asphalt": asphalt,
    "asphalt road": asphalt,
    "pavement": pavement,
    "granite": granite,
    "stone": stone,
    "sandpaper": sandpaper,
    "glass": glass,
    "mosaic": mosaic,
    "striped cloth": striped_cloth,
    "biscuit": crumb,
    "solar cell": solar_cell,
}
"""Every surface by the name captions use."""
