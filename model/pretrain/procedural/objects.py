"""Draws parts seen from above: each from its signed distance (pixels, positive inside), lit at its edges.

A builder takes `(rng, frame)` and returns the part's colours and its distance field.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from model.pretrain.procedural import colours
from model.pretrain.procedural.noise import (
    Field,
    Rng,
    fractal,
    grid,
    mix,
    plain,
    relief,
    rotated,
    smooth,
    step,
    tint,
    white,
)
from model.pretrain.procedural.surfaces import SURFACES


@dataclass(frozen=True)
class Frame:
    """Where a part lies: coordinates along and across it (pixels) and its half extent."""

    size: int
    radius: float
    angle: float
    u: Field
    v: Field

    @property
    def r(self) -> Field:
        """Distance from the middle."""
        return np.hypot(self.u, self.v)

    @property
    def theta(self) -> Field:
        """Angle around the middle, in radians."""
        return np.arctan2(self.v, self.u)


Part = tuple[Field, Field]
Builder = Callable[[Rng, Frame], Part]


def place(rng: Rng, size: int) -> Frame:
    """A random pose: usually whole in the frame, at times close up and cut by it."""
    radius = size * (rng.uniform(0.3, 0.47) if rng.random() < 0.8 else rng.uniform(0.47, 0.8))
    angle = float(rng.uniform(0, 2 * np.pi))
    reach = max(0.5 * size - radius, 0.06 * size)
    u, v = rotated(size, angle, (rng.uniform(-reach, reach), rng.uniform(-reach, reach)))
    return Frame(size, float(radius), angle, u, v)


def metal(rng: Rng, frame: Frame) -> Field:
    """A metal material for a part."""
    name = str(rng.choice(["brushed metal", "cast metal", "polished steel", "magnet tile"], p=[0.35, 0.3, 0.2, 0.15]))
    picture = SURFACES[name](rng, frame.size)
    return np.clip(picture * np.float32(rng.uniform(0.45, 0.7) / picture.mean()), 0, 1)


def coloured(rng: Rng, frame: Frame, colour: Field | None = None) -> Field:
    """Plastic, rubber or a pressed powder: one colour, hardly any texture."""
    k = frame.size / 128
    value = 1 + 0.03 * smooth(rng, frame.size, 25 * k) + rng.uniform(0, 0.05) * smooth(rng, frame.size, 1.5 * k)
    return tint(colours.vivid(rng) if colour is None else colour, value)


def capsule_distance(frame: Frame, half_length: float, radius: float) -> Field:
    """Distance inside a rod with round ends, `2 (half_length + radius)` long."""
    beyond = np.maximum(np.abs(frame.u) - half_length, 0)
    return (radius - np.hypot(beyond, frame.v)).astype(np.float32)


def box_distance(frame: Frame, half_u: float, half_v: float, corner: float) -> Field:
    """Distance inside a rectangle with rounded corners."""
    outside_u, outside_v = np.abs(frame.u) - (half_u - corner), np.abs(frame.v) - (half_v - corner)
    outer = np.hypot(np.maximum(outside_u, 0), np.maximum(outside_v, 0))
    return (corner - outer - np.minimum(np.maximum(outside_u, outside_v), 0)).astype(np.float32)


def nut(rng: Rng, frame: Frame) -> Part:
    flats = [np.abs(frame.u * np.cos(a) + frame.v * np.sin(a)) for a in (0, np.pi / 3, 2 * np.pi / 3)]
    hexagon = frame.radius * 0.87 - np.maximum.reduce(flats)
    hole = frame.radius * rng.uniform(0.38, 0.55)
    picture = metal(rng, frame)
    chamfer = step(frame.r - 0.84 * frame.radius, 1.5)
    thread = np.exp(-(((frame.r - 1.1 * hole) / (0.06 * frame.radius)) ** 2)).astype(np.float32)
    picture = mix(picture, picture * np.float32(rng.uniform(0.5, 0.8)), np.maximum(chamfer, thread))
    return picture, np.minimum(hexagon, frame.r - hole).astype(np.float32)


def washer(rng: Rng, frame: Frame) -> Part:
    hole = frame.radius * rng.uniform(0.3, 0.7)
    picture = metal(rng, frame) if rng.random() < 0.7 else coloured(rng, frame)
    turned = 1 + rng.uniform(0, 0.12) * np.sin(frame.r * rng.uniform(0.8, 2.2))
    return picture * turned[..., None].astype(np.float32), np.minimum(frame.radius - frame.r, frame.r - hole)


def gear(rng: Rng, frame: Frame) -> Part:
    teeth = int(rng.integers(9, 26))
    profile = np.tanh(rng.uniform(2, 5) * np.sin(teeth * frame.theta))
    outline = frame.radius * (0.9 + rng.uniform(0.05, 0.09) * profile) - frame.r
    hole = frame.radius * rng.uniform(0.15, 0.35)
    picture = metal(rng, frame) if rng.random() < 0.75 else coloured(rng, frame)
    web = step(frame.r - 1.5 * hole, 2) * step(0.7 * frame.radius - frame.r, 2)
    picture = mix(picture, picture * np.float32(rng.uniform(0.55, 0.85)), web)
    distance = np.minimum(outline, frame.r - hole)
    if rng.random() < 0.4:
        spokes = int(rng.integers(3, 7))
        bore = np.float32(2 * np.pi / spokes)
        local = (frame.theta + 4 * np.pi) % bore - bore / 2
        middle = 0.57 * frame.radius
        around = np.sqrt(frame.r**2 + middle**2 - 2 * frame.r * middle * np.cos(local))
        distance = np.minimum(distance, around - 0.11 * frame.radius)
    return picture, distance.astype(np.float32)


def capsule(rng: Rng, frame: Frame) -> Part:
    thick = frame.radius * rng.uniform(0.32, 0.45)
    distance = capsule_distance(frame, frame.radius - thick, thick)
    first, second = coloured(rng, frame), coloured(rng, frame)
    picture = mix(first, second, step(frame.u - rng.uniform(-0.1, 0.2) * frame.radius, 1.2))
    seam = np.exp(-(((frame.u - 0.02 * frame.radius) / 1.2) ** 2)).astype(np.float32)
    picture = mix(picture, picture * np.float32(0.7), seam * np.float32(rng.random()))
    shine = np.exp(-(((frame.v + 0.4 * thick) / (0.18 * thick)) ** 2)) * step(distance - 0.3 * thick, thick * 0.3)
    return mix(
        picture, plain(colours.rgb(1, 1, 1), frame.size), (rng.uniform(0.1, 0.7) * shine).astype(np.float32)
    ), distance


def pill(rng: Rng, frame: Frame) -> Part:
    flat = rng.uniform(0.55, 1.0)
    distance = (
        frame.radius * flat * (1 - np.sqrt((frame.u / frame.radius) ** 2 + (frame.v / (flat * frame.radius)) ** 2))
    )
    colour = colours.vary(rng, colours.rgb(0.9, 0.89, 0.86)) if rng.random() < 0.6 else colours.vivid(rng)
    picture = coloured(rng, frame, colour)
    if rng.random() < 0.5:
        specks = step(smooth(rng, frame.size, 1.8 * frame.size / 128) - 1.9, 0.8)
        picture = mix(picture, plain(colours.vivid(rng), frame.size), specks)
    if rng.random() < 0.5:
        groove = relief(-3 * np.exp(-((frame.u / 2.5) ** 2)), rng.uniform(0, 6.3))
        picture = picture * (1 + 0.25 * groove)[..., None]
    return picture.astype(np.float32), distance.astype(np.float32)


def bottle(rng: Rng, frame: Frame) -> Part:
    glass = colours.between(rng, colours.rgb(0.3, 0.2, 0.1), colours.rgb(0.3, 0.45, 0.4))
    wave = np.sin(frame.r / frame.radius * rng.uniform(8, 20) + rng.uniform(0, 6.3))
    sparkle = fractal(rng, frame.size, 12 * frame.size / 128, 3) * 0.15
    picture = tint(glass, 0.9 + 0.4 * wave + sparkle + 0.3 * np.cos(frame.theta * 2 + rng.uniform(0, 6.3)))
    neck = frame.radius * rng.uniform(0.4, 0.65)
    picture = mix(picture, plain(colours.grey(rng, 0.02, 0.12), frame.size), step(neck - frame.r, 3))
    rim = np.exp(-(((frame.r - 1.12 * neck) / (0.07 * frame.radius)) ** 2)) * (0.6 + 0.4 * np.cos(frame.theta - 1))
    picture = mix(picture, plain(colours.rgb(0.95, 0.95, 0.92), frame.size), (0.8 * rim).astype(np.float32))
    return picture, (frame.radius - frame.r).astype(np.float32)


def screw(rng: Rng, frame: Frame) -> Part:
    head = frame.radius * rng.uniform(0.3, 0.45)
    thick = head * rng.uniform(0.4, 0.6)
    along = frame.u + frame.radius
    taper = np.clip((2 * frame.radius - along) / (0.25 * frame.radius), 0.05, 1)
    pitch = frame.radius * rng.uniform(0.09, 0.16)
    thread = np.sin(2 * np.pi * (along + 0.35 * frame.v) / pitch)
    threaded = step(along - frame.radius * rng.uniform(0.5, 0.9), 3)
    shaft = np.minimum(thick * (taper + 0.12 * thread * threaded) - np.abs(frame.v), 2 * frame.radius - along)
    cap = np.minimum(head - np.abs(frame.v) * 1.0, np.minimum(along, 0.45 * head + 0.2 * head - along))
    picture = metal(rng, frame)
    cylinder = 1.1 - 0.5 * np.abs(frame.v / thick) ** 2 * (along > 0.65 * head)
    value = np.clip(cylinder, 0.3, 1.2) * (1 + 0.35 * thread * threaded)
    return (picture * value[..., None]).astype(np.float32), np.maximum(shaft, cap).astype(np.float32)


def button(rng: Rng, frame: Frame) -> Part:
    picture = coloured(rng, frame)
    rim = frame.radius * rng.uniform(0.65, 0.8)
    bowl = relief(3 * step(frame.r - rim, 6), rng.uniform(0, 6.3))
    picture = picture * (1 + 0.5 * bowl)[..., None]
    distance = frame.radius - frame.r
    spread, hole = frame.radius * rng.uniform(0.22, 0.32), frame.radius * rng.uniform(0.08, 0.13)
    for across in (-spread, spread):
        for along in (-spread, spread) if rng.random() < 0.6 else (0.0,):
            distance = np.minimum(distance, np.hypot(frame.u - along, frame.v - across) - hole)
    return picture.astype(np.float32), distance.astype(np.float32)


def cable(rng: Rng, frame: Frame) -> Part:
    """Cross section: a sheath around insulated cores of stranded copper."""
    picture = coloured(rng, frame, colours.grey(rng, 0.25, 0.8))
    count = int(rng.integers(1, 5))
    ring = 0.0 if count == 1 else frame.radius * rng.uniform(0.43, 0.48)
    core = frame.radius * (0.75 if count == 1 else {2: 0.4, 3: 0.38, 4: 0.31}[count])
    strand = rng.uniform(3.0, 5.0) * frame.size / 128
    bundle = np.cos(np.pi * frame.u / strand) * np.cos(np.pi * (frame.v + 0.5 * frame.u) / strand)
    copper = tint(
        colours.between(rng, colours.rgb(0.8, 0.5, 0.3), colours.rgb(0.75, 0.7, 0.65)), 0.75 + 0.35 * np.abs(bundle)
    )
    for index in range(count):
        turn = 2 * np.pi * index / count
        from_core = np.hypot(frame.u - ring * np.cos(turn), frame.v - ring * np.sin(turn))
        insulation = coloured(rng, frame)
        outline = (0.6 * np.exp(-((from_core - core) ** 2) / 2)).astype(np.float32)
        picture = mix(picture, insulation, step(core - from_core))
        picture = mix(picture, copper, step(0.62 * core - from_core))
        picture = mix(picture, picture * np.float32(0.3), outline)
    return picture, (frame.radius - frame.r).astype(np.float32)


def plate(rng: Rng, frame: Frame) -> Part:
    """A sheet with drilled holes."""
    half_v = frame.radius * rng.uniform(0.5, 0.85)
    half_u = frame.radius * 0.9
    distance = box_distance(frame, half_u, half_v, frame.radius * rng.uniform(0.03, 0.25))
    hole = frame.radius * rng.uniform(0.07, 0.15)
    for along in (-0.65, 0.65) if rng.random() < 0.7 else (-0.65, 0.0, 0.65):
        for across in (-0.6, 0.6):
            around = np.hypot(frame.u - along * half_u, frame.v - across * half_v)
            distance = np.minimum(distance, around - hole)
    picture = metal(rng, frame) if rng.random() < 0.6 else SURFACES[str(rng.choice(list(SURFACES)))](rng, frame.size)
    return picture, distance.astype(np.float32)


def bearing(rng: Rng, frame: Frame) -> Part:
    picture = metal(rng, frame)
    hole, middle = 0.4 * frame.radius, 0.7 * frame.radius
    groove = step(frame.r - 0.58 * frame.radius, 1.5) * step(0.82 * frame.radius - frame.r, 1.5)
    picture = mix(picture, plain(colours.grey(rng, 0.08, 0.25), frame.size), groove)
    balls = int(rng.integers(7, 14))
    sector = 2 * np.pi / balls
    local = (frame.theta + 4 * np.pi) % sector - sector / 2
    around = np.sqrt(np.maximum(frame.r**2 + middle**2 - 2 * frame.r * middle * np.cos(local), 0))
    size = min(0.13, 0.8 * np.pi * 0.7 / balls) * frame.radius
    ball = tint(colours.grey(rng, 0.5, 0.8), np.clip(1.25 - 0.7 * (around / size) ** 2, 0.2, 1.3))
    return mix(picture, ball, step((size - around).astype(np.float32))), np.minimum(
        frame.radius - frame.r, frame.r - hole
    )


def _ragged_outline(rng: Rng, frame: Frame, rough: float) -> Field:
    """Distance inside a hand-made round: an oval, between ellipse and rounded rectangle, with an uneven rim."""
    k, aspect = frame.size / 128, rng.uniform(0.65, 1.0)
    along, across = np.abs(frame.u), np.abs(frame.v) / np.float32(aspect)
    square = np.sqrt(np.sqrt(along**4 + across**4))
    oval = np.hypot(along, across)
    reach = oval + (square - oval) * np.float32(rng.uniform(0, 0.8))
    wave = smooth(rng, frame.size, rng.uniform(25, 50) * k) + 0.3 * fractal(rng, frame.size, rng.uniform(5, 14) * k, 2)
    return (aspect * (frame.radius * (1 + rough * wave) - reach)).astype(np.float32)


def cookie(rng: Rng, frame: Frame) -> Part:
    """A biscuit: domed, darker baked towards the rim."""
    distance = _ragged_outline(rng, frame, rng.uniform(0.015, 0.07))
    picture = SURFACES["biscuit"](rng, frame.size)
    depth = np.clip(distance / frame.radius, 0, 1)
    dome = relief(frame.radius * np.sqrt(depth) * np.float32(rng.uniform(0.2, 0.5)), rng.uniform(0, 6.3))
    value = 1 + 0.3 * np.clip(dome, -1, 1) + rng.uniform(0, 0.2) * np.tanh(4 * depth)
    rim = np.exp(-depth / rng.uniform(0.05, 0.2)) * np.float32(rng.uniform(0.1, 0.6))
    browned = picture * colours.rgb(0.85, 0.72, 0.58)
    return (mix(picture, browned, rim) * value[..., None]).astype(np.float32), distance


def hazelnut(rng: Rng, frame: Frame) -> Part:
    """A nut with a pale cap at one end and fine streaks towards the other."""
    along = frame.u / frame.radius
    width = frame.radius * (0.82 - 0.1 * along)
    distance = 0.85 * (frame.radius - np.hypot(frame.u, frame.v * frame.radius / width))
    shell = colours.between(rng, colours.rgb(0.6, 0.38, 0.22), colours.rgb(0.35, 0.2, 0.11))
    fan = np.arctan2(frame.v, frame.u + 1.4 * frame.radius)
    streaks = np.sin(fan * rng.uniform(60, 110) + 2 * smooth(rng, frame.size, 10 * frame.size / 128))
    value = 1 + rng.uniform(0.03, 0.12) * streaks + 0.08 * fractal(rng, frame.size, 14 * frame.size / 128, 4)
    globe = 1.15 - 0.55 * (frame.r / frame.radius) ** 2
    cap = step(-along - np.float32(rng.uniform(0.45, 0.7)) + 0.06 * smooth(rng, frame.size, 6 * frame.size / 128), 0.08)
    pale = tint(colours.vary(rng, colours.rgb(0.68, 0.54, 0.38)), 1 + 0.12 * white(rng, frame.size))
    return (mix(tint(shell, value), pale, cap) * globe[..., None]).astype(np.float32), distance.astype(np.float32)


def tablet(rng: Rng, frame: Frame) -> Part:
    """A pressed disc: a bevelled rim, often a score line, a powdery face."""
    k = frame.size / 128
    colour = colours.mild(rng, 0.75, 0.98) if rng.random() < 0.7 else colours.vivid(rng)
    picture = coloured(rng, frame, colour) * (1 + 0.02 * white(rng, frame.size))[..., None]
    height = -3 * k * step(frame.r - rng.uniform(0.75, 0.92) * frame.radius, 0.12 * frame.radius)
    if rng.random() < 0.6:
        height = height - 2 * k * np.exp(-((frame.u / (2 * k)) ** 2))
    light = np.clip(relief(height.astype(np.float32), rng.uniform(0, 6.3)), -1, 1)
    return (picture * (1 + 0.3 * light)[..., None]).astype(np.float32), (frame.radius - frame.r).astype(np.float32)


def transistor(rng: Rng, frame: Frame) -> Part:
    """A black moulded body, at times with a drilled metal tab, and two or three tinned legs."""
    k, r = frame.size / 128, frame.radius
    body = box_distance(frame, 0.42 * r, r * rng.uniform(0.4, 0.55), 0.05 * r)
    case = tint(colours.grey(rng, 0.05, 0.2), 1 + rng.uniform(0.05, 0.2) * smooth(rng, frame.size, 1.2 * k))
    picture, distance = tint(colours.metal(rng), 1 + 0.1 * smooth(rng, frame.size, 4 * k)), body
    pitch, half = r * rng.uniform(0.24, 0.34), r * rng.uniform(0.04, 0.09)
    for leg in (-pitch, 0.0, pitch) if rng.random() < 0.75 else (-pitch, pitch):
        bent = leg * (1 + 0.3 * np.clip((frame.u - 0.6 * r) / r, 0, 0.3)) + rng.normal(0, 0.01) * frame.u
        leg_distance = np.minimum(half - np.abs(frame.v - bent), np.minimum(frame.u, r - frame.u))
        distance = np.maximum(distance, leg_distance)
    if rng.random() < 0.5:
        tab = box_distance(replace(frame, u=frame.u + 0.55 * r), 0.4 * r, 0.4 * r, 0.04 * r)
        hole = np.hypot(frame.u + 0.66 * r, frame.v) - r * rng.uniform(0.1, 0.18)
        distance = np.maximum(distance, np.minimum(tab, hole))
    dimple = np.exp(-((np.hypot(frame.u + 0.2 * r, frame.v) / (0.09 * r)) ** 4)) * rng.uniform(0, 0.5)
    return mix(picture, case * (1 + dimple)[..., None].astype(np.float32), step(body)), distance.astype(np.float32)


def toothbrush(rng: Rng, frame: Frame) -> Part:
    """The head of a brush: tufts of bristles in rows on a rounded bar."""
    wide = frame.radius * rng.uniform(0.38, 0.5)
    distance = capsule_distance(frame, frame.radius - wide, wide)
    picture = coloured(rng, frame, colours.mild(rng, 0.6, 0.97) if rng.random() < 0.6 else None)
    pitch = wide * rng.uniform(0.42, 0.58)
    column, row = np.floor(frame.u / pitch), np.floor(frame.v / pitch)
    along, across = frame.u - (column + 0.5) * pitch, frame.v - (row + 0.5) * pitch
    lean = 0.12 * pitch * smooth(rng, frame.size, pitch)
    tuft = rng.uniform(0.36, 0.48) * pitch - np.hypot(along + lean, across + lean)
    palette = np.stack([colours.vivid(rng), colours.mild(rng, 0.7, 0.98), colours.mild(rng, 0.7, 0.98)])
    order = rng.integers(0, 3, 64)
    bristles = palette[order[np.clip(np.abs(column), 0, 63).astype(int)]]
    shade = 0.85 + 0.2 * smooth(rng, frame.size, 1.0 * frame.size / 128) + 0.15 * np.clip(tuft / pitch, -1, 1)
    inner = np.minimum(tuft, distance - 0.12 * wide)
    picture = picture * (1 - 0.5 * np.exp(-np.maximum(-inner, 0) / (0.08 * wide)))[..., None]
    return mix(picture.astype(np.float32), bristles * shade[..., None], step(inner)), distance


def zipper(rng: Rng, frame: Frame) -> Part:
    """Two bands of cloth that meet in a row of interlocked teeth, upright."""
    k = frame.size / 128
    u, v = rotated(frame.size, np.pi / 2 + float(rng.normal(0, 0.02)))
    v = v - np.float32(rng.uniform(-0.12, 0.12) * frame.size)
    half, reach = rng.uniform(24, 52) * k, rng.uniform(4, 11) * k
    thread = rng.uniform(2.2, 3.6) * k
    weave = np.sin(u * np.float32(2 * np.pi / thread)) * np.sin(v * np.float32(np.pi / thread))
    base = colours.grey(rng, 0.06, 0.3) if rng.random() < 0.6 else colours.vivid(rng)
    cloth = tint(base, 1 + rng.uniform(0.05, 0.25) * weave + 0.06 * smooth(rng, frame.size, 1.2 * k))
    pitch = rng.uniform(4, 9) * k
    phase = (u / pitch + 0.5 * (v > 0)) % 1
    tooth = np.minimum(0.33 * pitch - pitch * np.abs(phase - 0.5), reach - np.abs(v))
    light = 1.25 - 1.6 * np.abs(phase - 0.4) - 0.3 * np.abs(v) / reach
    metal_or_plastic = colours.metal(rng) if rng.random() < 0.5 else base * np.float32(1.5)
    picture = mix(
        cloth * (1 - 0.6 * step(reach + k - np.abs(v), 2 * k))[..., None], tint(metal_or_plastic, light), step(tooth)
    )
    return picture, (half - np.abs(v)).astype(np.float32)


def _strip(rng: Rng, frame: Frame, names: tuple[str, ...], *, upright: bool) -> Part:
    """A long part that crosses the frame between two straight sides; now and then its end is seen."""
    u, v = rotated(frame.size, (np.pi / 2 if upright else 0.0) + float(rng.normal(0, 0.015)))
    half, shift = frame.size * rng.uniform(0.18, 0.48), frame.size * rng.uniform(-0.15, 0.15)
    distance = half - np.abs(v - np.float32(shift))
    if rng.random() < 0.3:
        distance = np.minimum(distance, rng.uniform(0.25, 0.49) * frame.size - u * rng.choice([-1.0, 1.0]))
    picture = np.clip(SURFACES[str(rng.choice(names))](rng, frame.size), 0, 1)
    curve = 1 - rng.uniform(-0.1, 0.4) * ((v - np.float32(shift)) / np.float32(half)) ** 2
    uneven = smooth(rng, frame.size, 10 * frame.size / 128) * rng.uniform(0, 0.25)
    return (picture * curve[..., None]).astype(np.float32), (distance + uneven).astype(np.float32)


def metal_strip(rng: Rng, frame: Frame) -> Part:
    """An upright bar or tile, as line cameras see it."""
    return _strip(
        rng, frame, ("magnet tile", "magnet tile", "magnet tile", "cast metal", "polished steel"), upright=True
    )


def rail(rng: Rng, frame: Frame) -> Part:
    """A level bar with a bright worn running band."""
    picture, distance = _strip(
        rng, frame, ("cast metal", "polished steel", "brushed metal", "rusty metal"), upright=False
    )
    rows, _ = grid(frame.size)
    band = (rows - frame.size * rng.uniform(-0.1, 0.1)) / (frame.size * rng.uniform(0.05, 0.2))
    worn = step(1 - np.abs(band), 0.2) * np.float32(rng.uniform(0, 0.5))
    return (picture * (1 + worn)[..., None]).astype(np.float32), distance


def ingot(rng: Rng, frame: Frame) -> Part:
    """A cast bar with sloping sides around a flat top."""
    half_v = frame.radius * rng.uniform(0.35, 0.6)
    distance = box_distance(frame, 0.95 * frame.radius, half_v, frame.radius * rng.uniform(0.02, 0.12))
    picture = SURFACES[str(rng.choice(["cast metal", "polished steel", "brushed metal"]))](rng, frame.size)
    slope = frame.radius * rng.uniform(0.1, 0.2)
    sides = relief(np.minimum(np.maximum(distance, 0), slope).astype(np.float32), rng.uniform(0, 6.3))
    return (picture * (1 + 0.35 * np.clip(sides, -1, 1))[..., None]).astype(np.float32), distance


OBJECTS: dict[str, Builder] = {
    "nut": nut,
    "washer": washer,
    "gear": gear,
    "capsule": capsule,
    "pill": pill,
    "bottle": bottle,
    "screw": screw,
    "button": button,
    "cable": cable,
    "metal plate": plate,
    "bearing": bearing,
    "cookie": cookie,
    "chocolate cookie": cookie,
    "hazelnut": hazelnut,
    "tablet": tablet,
    "transistor": transistor,
    "metal strip": metal_strip,
    "rail": rail,
    "ingot": ingot,
    "toothbrush": toothbrush,
    "zipper": zipper,
}
"""Every object by the name captions use."""


def shaded(rng: Rng, frame: Frame, picture: Field, distance: Field) -> Field:
    """`picture` with a bevel lit from one side along the part's edges, and darker just inside them."""
    k = frame.size / 128
    bevel = rng.uniform(1.5, 8.0) * k
    height = bevel * np.sqrt(np.clip(distance / bevel, 0, 1))
    light = relief(height.astype(np.float32), rng.uniform(0, 6.3))
    value = (
        1
        + rng.uniform(0.15, 0.45) * np.clip(light, -1, 1)
        - rng.uniform(0.05, 0.3) * np.exp(-np.maximum(distance, 0) / (2 * k))
    )
    return np.clip(picture * value[..., None], 0, 1).astype(np.float32)


def tray(rng: Rng, size: int) -> Field:
    """A plain sheet of any brightness and a mild colour: soft gradient, fine speckle, at times its rim in view."""
    k = size / 128
    u, _ = rotated(size, rng.uniform(0, 6.3))
    value = 1 + rng.uniform(0, 0.35) * u / size + rng.uniform(0, 0.06) * smooth(rng, size, 50 * k)
    colour = colours.mild(rng, 0.04, 0.97)
    if rng.random() < 0.6:
        speckle = rng.uniform(0.003, 0.03) / float(colour.mean())
        value = value + speckle * smooth(rng, size, rng.uniform(0.5, 1.6) * k)
    if rng.random() < 0.2:
        _, across = rotated(size, float(rng.integers(0, 4)) * np.pi / 2 + rng.normal(0, 0.03))
        beyond = across - np.float32(rng.uniform(0.36, 0.48) * size)
        value = value * (1 + rng.uniform(-0.5, 0.5) * step(beyond, 2 * k))
        value = value + rng.uniform(0, 0.5) * np.exp(-((beyond / (1.5 * k)) ** 2))
    return np.clip(tint(colour, value), 0, 1)


def background(rng: Rng, size: int) -> Field:
    """What a part lies on: mostly a tray, a plain sheet or a dark void, at times a subdued material."""
    k, draw = size / 128, rng.random()
    if draw < 0.45:
        return tray(rng, size)
    if draw < 0.58:
        colour = colours.grey(rng, 0.02, 0.15)
    elif draw < 0.7:
        colour = colours.grey(rng, 0.7, 0.97)
    elif draw < 0.8:
        colour = colours.vivid(rng)
    else:
        names = ["fabric", "concrete", "wood", "rubber", "paper", "brushed metal", "circuit board", "stone"]
        picture = SURFACES[str(rng.choice(names))](rng, size)
        return np.clip(picture.mean(axis=(0, 1)) + (picture - picture.mean(axis=(0, 1))) * 0.6, 0, 1).astype(np.float32)
    value = 1 + 0.04 * smooth(rng, size, 50 * k) + rng.uniform(0, 0.03) * white(rng, size)
    return np.clip(tint(colour, value), 0, 1)
