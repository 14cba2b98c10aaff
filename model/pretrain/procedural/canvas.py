"""Defines the faultless scene, and places and shapes of defects on it.

Points are `(row, column)` from the middle of the picture, in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.pretrain.procedural.noise import Field, Rng, fractal, rotated

Point = tuple[float, float]


@dataclass(frozen=True)
class Canvas:
    """The faultless scene: colours `(H, W, 3)`, what lies behind the part, and distance inside the part (pixels)."""

    picture: Field
    behind: Field
    distance: Field

    @property
    def size(self) -> int:
        """Pixels per side."""
        return self.picture.shape[0]

    @property
    def k(self) -> float:
        """Pixels per pixel of the 128 px design."""
        return self.size / 128


def inside(rng: Rng, canvas: Canvas, margin: float = 4.0) -> Point:
    """A point `(row, column)` from the picture's middle, on the part and where possible `margin` from its edge."""
    depth = min(margin * canvas.k, 0.6 * float(canvas.distance.max()))
    border = int(canvas.size * 0.05)
    choices = np.argwhere(canvas.distance[border : canvas.size - border, border : canvas.size - border] >= depth)
    if not len(choices):
        choices = np.argwhere(canvas.distance >= depth) - border
    row, column = choices[rng.integers(len(choices))] + border - (canvas.size - 1) / 2
    return float(row), float(column)


def edge(rng: Rng, canvas: Canvas) -> Point:
    """A point on the part's edge, or on the frame's where the part fills it."""
    choices = np.argwhere(np.abs(canvas.distance) < 1.5)
    half = (canvas.size - 1) / 2
    if len(choices) >= 8:
        row, column = choices[rng.integers(len(choices))] - half
        return float(row), float(column)
    along, side = float(rng.uniform(-half, half)), float(rng.choice([-half, half]))
    return (side, along) if rng.random() < 0.5 else (along, side)


def blob(rng: Rng, canvas: Canvas, centre: Point, radius: float, rough: float, aspect: float = 1.0) -> Field:
    """Signed distance, positive inside, of a deformed disc: harmonics up to `rough` of its radius, round amid."""
    u, v = rotated(canvas.size, rng.uniform(0, np.pi), centre)
    u, v = u / np.float32(np.sqrt(aspect)), v * np.float32(np.sqrt(aspect))
    theta = np.arctan2(v, u)
    outline = np.ones_like(u)
    for order in range(2, 9):
        outline += np.float32(rough * rng.normal() / order**1.4) * np.cos(
            order * theta + np.float32(rng.uniform(0, 6.3))
        )
    reach = np.hypot(u, v)
    deformed = 1 + (np.maximum(outline, 0.35) - 1) * np.minimum(reach / (0.7 * radius), 1) ** 2
    return (radius * deformed - reach).astype(np.float32)


def polygon(rng: Rng, canvas: Canvas, centre: Point, radius: float, aspect: float = 1.0) -> Field:
    """Signed distance of a rough polygon: half planes around a centre, their edges ragged by noise."""
    u, v = rotated(canvas.size, rng.uniform(0, np.pi), centre)
    u = u / np.float32(aspect)
    corners = int(rng.integers(4, 8))
    angles = 2 * np.pi * (np.arange(corners) + rng.uniform(-0.35, 0.35, corners)) / corners
    reach = radius * rng.uniform(0.6, 1.15, corners)
    planes = [r - (u * np.cos(a) + v * np.sin(a)) for a, r in zip(angles, reach, strict=True)]
    ragged = fractal(rng, canvas.size, 7 * canvas.k, 3, 0.6) * min(0.12 * radius, 2.2 * canvas.k)
    return (np.minimum.reduce(planes) + ragged).astype(np.float32)


def wander(rng: Rng, start: Point, angle: float, length: float, jitter: float, curl: float) -> NDArray[np.float64]:
    """A path of points half a pixel apart: `jitter` turns it at every few pixels, `curl` bends it as a whole."""
    count = max(int(length * 2), 4)
    knots = np.cumsum(rng.normal(0, jitter, count // 5 + 2))
    turns = np.interp(np.arange(count), np.arange(len(knots)) * 5, knots - knots.mean())
    heading = angle + turns + curl * (np.arange(count) / count - 0.5)
    steps = 0.5 * np.stack([np.sin(heading), np.cos(heading)], axis=1)
    return np.asarray(start) + np.cumsum(steps, axis=0) - steps.sum(axis=0) * 0.5


def stroke(size: int, path: NDArray[np.float64], widths: NDArray[np.float64]) -> Field:
    """Coverage of a line through `path` (rows, columns from the middle), `widths` pixels wide at each point."""
    reach = int(np.ceil(widths.max() / 2 + 1))
    offsets = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 2, indexing="ij"), axis=-1).reshape(-1, 2)
    points = path + (size - 1) / 2
    pixels = np.rint(points).astype(int)[:, None, :] + offsets
    gap = np.linalg.norm(pixels - points[:, None, :], axis=-1)
    value = np.clip(widths[:, None] / 2 - gap + 0.5, 0, 1).astype(np.float32)
    covered = np.zeros((size, size), dtype=np.float32)
    kept = ((pixels >= 0) & (pixels < size)).all(axis=-1) & (value > 0)
    np.maximum.at(covered, (pixels[kept][:, 0], pixels[kept][:, 1]), value[kept])
    return covered


def extent(rng: Rng, canvas: Canvas, smallest: float, largest: float) -> float:
    """A length in pixels, log-uniform between two lengths of the 128 px design: small ones as often as large ones."""
    return float(np.exp(rng.uniform(np.log(smallest), np.log(largest)))) * canvas.k


def border(rng: Rng, canvas: Canvas, side: int) -> Point:
    """A point a little beyond one `side` of the frame: 0 to 3 are top, right, bottom, left."""
    half = canvas.size / 2 + 2
    along = float(rng.uniform(-0.9, 0.9)) * half
    return ((-half, along), (along, half), (half, along), (along, -half))[side % 4]


def ragged(rng: Rng, canvas: Canvas, start: Point, end: Point, rough: float) -> NDArray[np.float64]:
    """A torn line from `start` to about `end`, points half a pixel apart: bends of every length, `rough` steep each."""
    chord = np.asarray(end) - np.asarray(start)
    length = float(np.hypot(*chord))
    position = np.arange(max(int(length * 2), 4)) / 2
    aside = np.zeros_like(position)
    wave = max(0.7 * length, 6 * canvas.k)
    while wave > 2.5 * canvas.k:
        knots = rng.normal(0, rough * wave * (0.5 if wave > 0.4 * length else 1.0), int(length / wave) + 3)
        aside += np.interp(position / wave + rng.random(), np.arange(len(knots)), knots)
        wave /= 2
    along = chord / max(length, 1e-6)
    across = np.array([-along[1], along[0]])
    return np.asarray(start) + position[:, None] * along + (aside - aside[0])[:, None] * across
