"""Draws copper of printed circuits: parallel tracks that bend by 45 degrees, pads at their ends, pours and large rings.

Everything is a signed distance in pixels, positive inside the copper.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.pretrain.procedural.noise import Field, Rng, rotated, smooth

_DIAGONAL = np.float32(np.sqrt(0.5))


@dataclass(frozen=True)
class Layout:
    """Distances `(H, W)` inside the tracks and pours, inside the pads, and inside the drilled holes."""

    tracks: Field
    pads: Field
    holes: Field

    @property
    def copper(self) -> Field:
        """Distance inside all copper, holes taken out."""
        return np.minimum(np.maximum(self.tracks, self.pads), -self.holes).astype(np.float32)


def _pad(rng: Rng, along: Field, across: Field, radius: float) -> Field:
    """A round, square or oblong pad of half width `radius` around the origin."""
    draw = rng.random()
    if draw < 0.55:
        return (radius - np.hypot(along, across)).astype(np.float32)
    if draw < 0.8:
        side = rng.uniform(0.9, 1.6)
        return (radius - np.maximum(np.abs(along) / side, np.abs(across))).astype(np.float32)
    return (radius - np.hypot(np.maximum(np.abs(along) - rng.uniform(0.3, 1.0) * radius, 0), across)).astype(np.float32)


def layout(rng: Rng, size: int) -> Layout:
    """A random piece of a board, `size` pixels wide, that shows both copper and base."""
    k = size / 128
    angle = float(rng.integers(0, 4)) * np.pi / 2 + (np.pi / 4 if rng.random() < 0.15 else 0.0)
    x, y = rotated(size, angle, (rng.uniform(-30, 30) * k, rng.uniform(-30, 30) * k))
    width = rng.uniform(3.0, 12.0) * k
    pitch = width * rng.uniform(1.7, 2.4 if rng.random() < 0.4 else 5.0) + 1.5 * k
    start, rise = rng.uniform(-50, 30) * k, rng.uniform(10, 60) * k * (rng.random() < 0.75)
    across = np.maximum(np.minimum(y, (y - x + start) * _DIAGONAL), y - rise).astype(np.float32)

    count = 2 * int(np.ceil(size / pitch)) + 4
    index = np.clip(np.floor(across / pitch).astype(int) + count // 2, 0, count - 1)
    alive = rng.random(count) < rng.uniform(0.35, 0.95)
    widths = width * np.where(rng.random(count) < 0.12, rng.uniform(1.3, 4.0, count), 1.0)
    last = np.where(rng.random(count) < 0.45, rng.uniform(-0.5, 0.5, count) * size, 2.0 * size)
    first = np.where(rng.random(count) < 0.25, last - rng.uniform(0.2, 0.8, count) * size, -2.0 * size)
    offset = across - (np.floor(across / pitch) + np.float32(0.5)) * np.float32(pitch)
    tracks = np.minimum(widths[index] / 2 - np.abs(offset), np.minimum(last[index] - x, x - first[index]))
    tracks = np.where(alive[index], tracks, -2.0 * k).astype(np.float32)

    pads = np.full_like(tracks, -size)
    holes = np.full_like(tracks, -size)
    largest, drilled = 0.5 * pitch + (pitch - width) * 0.35, rng.random() < 0.35
    for line in np.flatnonzero(np.where(alive, np.abs(last) < size, rng.random(count) < 0.2))[:9]:
        level = (line - count // 2 + 0.5) * pitch
        at = float(last[line]) if alive[line] else float(rng.uniform(-0.5, 0.5) * size)
        bend = float(np.clip(at - start + level * (1 / _DIAGONAL - 1), 0, rise)) if rise else 0.0
        radius = min(max(largest, 0.6 * width), 14 * k) * rng.uniform(0.75, 1.0)
        pads = np.maximum(pads, _pad(rng, x - at, y - level - bend, radius))
        if drilled and rng.random() < 0.8:
            holes = np.maximum(holes, radius * rng.uniform(0.3, 0.5) - np.hypot(x - at, y - level - bend))
    if rng.random() < 0.3:
        middle, half = rng.uniform(-45, 45) * k, rng.uniform(10, 35) * k
        pour = half - np.abs(across - middle)
        tracks = np.maximum(np.minimum(tracks, -pour - rng.uniform(3, 9) * k), pour)
        if rng.random() < 0.5:
            tracks = np.minimum(tracks, np.maximum(-pour, np.abs(across - middle) - width / 2))
    if rng.random() < 0.35:
        centre, radius = rng.uniform(-50, 50, 2) * k, rng.uniform(9, 28) * k
        near = np.hypot(x - centre[0], y - centre[1])
        tracks = np.minimum(tracks, near - radius - rng.uniform(3, 8) * k)
        turn = float(rng.integers(0, 8)) * np.pi / 4
        ahead = (x - centre[0]) * np.cos(turn) + (y - centre[1]) * np.sin(turn)
        aside = (y - centre[1]) * np.cos(turn) - (x - centre[0]) * np.sin(turn)
        stem = np.minimum(rng.uniform(0.15, 0.9) * radius - np.abs(aside), ahead)
        pads = np.maximum(pads, radius - near)
        tracks = np.maximum(tracks, stem)
        if rng.random() < 0.6:
            holes = np.maximum(holes, rng.uniform(0.25, 0.6) * radius - near)
    ragged = np.float32(rng.uniform(0, 0.3) * k) * smooth(rng, size, rng.uniform(0.8, 2.0) * k)
    drawn = Layout((tracks + ragged).astype(np.float32), (pads + ragged).astype(np.float32), holes.astype(np.float32))
    return drawn if 0.04 < float((drawn.copper > 0).mean()) < 0.93 else layout(rng, size)
