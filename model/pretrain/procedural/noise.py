"""Makes the random fields and shapes that procedural pictures consist of.

Lengths are in pixels of the picture; fields are `(H, W)`, mostly float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from scipy.spatial import cKDTree

Field = NDArray[np.floating[Any]]
"""`(H, W)`, or `(H, W, 3)` for colours in [0, 1]."""

Rng = np.random.Generator


_FINEST = 0.8
"""Pixels: noise below this scale is white."""


def _basis(rng: Rng, size: int, scale: float) -> Field:
    """Gaussian bumps one `scale` apart, `(size, cells)`; rows of norm 1, so white noise through it keeps variance 1."""
    cells = int(np.ceil(size / scale)) + 5
    positions = np.arange(size) / scale + 1.5 + rng.random()
    bumps = np.exp(-2.0 * (positions[:, None] - np.arange(cells)) ** 2)
    return (bumps / np.linalg.norm(bumps, axis=1, keepdims=True)).astype(np.float32)


def smooth(rng: Rng, size: int, scale: float, scale_x: float | None = None) -> Field:
    """Gaussian noise of mean 0, variance 1, correlated over `scale` rows and `scale_x` columns (default the same)."""
    scale_x = scale if scale_x is None else scale_x
    if max(scale, scale_x) < _FINEST:
        return white(rng, size)
    rows, columns = _basis(rng, size, max(scale, _FINEST)), _basis(rng, size, max(scale_x, _FINEST))
    grid = rng.standard_normal((rows.shape[1], columns.shape[1]), dtype=np.float32)
    return rows @ grid @ columns.T


def white(rng: Rng, size: int) -> Field:
    """Independent normal noise per pixel."""
    return rng.standard_normal((size, size), dtype=np.float32)


def fractal(rng: Rng, size: int, scale: float, octaves: int = 4, gain: float = 0.55) -> Field:
    """Sum of smooth noises, each half the scale and `gain` times the height of the one before; variance 1."""
    total = np.zeros((size, size), dtype=np.float32)
    power = 0.0
    for octave in range(octaves):
        height = gain**octave
        total += np.float32(height) * smooth(rng, size, scale / 2**octave)
        power += height**2
    return total / np.float32(np.sqrt(power))


def chroma(rng: Rng, size: int, scale: float) -> Field:
    """Smooth noise of colour alone, `(size, size, 3)`: variance 1 in each channel, and they sum to 0."""
    warm = np.float32(np.sqrt(0.75)) * smooth(rng, size, scale)
    green = smooth(rng, size, scale)
    return np.stack([warm - green / 2, green, -warm - green / 2], axis=-1)


def grid(size: int) -> tuple[Field, Field]:
    """Pixel centres as row and column coordinates from the middle of the picture."""
    axis = (np.arange(size) - (size - 1) / 2).astype(np.float32)
    rows, columns = np.meshgrid(axis, axis, indexing="ij")
    return rows, columns


def rotated(size: int, angle: float, centre: tuple[float, float] = (0.0, 0.0)) -> tuple[Field, Field]:
    """Coordinates `(u, v)` along and across a direction at `angle` (radians), from `centre` (row, column)."""
    rows, columns = grid(size)
    rows, columns = rows - np.float32(centre[0]), columns - np.float32(centre[1])
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return cosine * columns + sine * rows, cosine * rows - sine * columns


def sample(field: Field, rows: Field, columns: Field) -> Field:
    """`field` (`(H, W)` or `(H, W, 3)`) at array coordinates, linearly interpolated, mirrored beyond its border."""
    if field.ndim == 2:
        return map_coordinates(field, [rows, columns], order=1, mode="mirror").astype(np.float32)
    return np.stack([sample(field[..., channel], rows, columns) for channel in range(field.shape[2])], axis=-1)


def oriented(rng: Rng, size: int, along: float, across: float, angle: float) -> Field:
    """Smooth noise stretched along a direction: correlated over `along` pixels on it, `across` pixels off it."""
    canvas = int(np.ceil(size * 1.45))
    field = smooth(rng, canvas, across, along)
    u, v = rotated(size, angle)
    middle = np.float32((canvas - 1) / 2)
    return sample(field, v + middle, u + middle)


def direction(rng: Rng) -> float:
    """An angle in radians: often along an axis of the picture, as parts in a fixture are, else any."""
    axis = float(rng.choice([0.0, np.pi / 2]))
    return axis + float(rng.normal(0.0, 0.03)) if rng.random() < 0.6 else float(rng.uniform(0.0, np.pi))


def cells(rng: Rng, size: int, spacing: float) -> tuple[Field, Field, NDArray[np.intp]]:
    """Voronoi cells `spacing` apart: distances to the nearest and second nearest seed, and the nearest's index."""
    count = int(np.clip((size / spacing) ** 2 * 1.4, 4, 1500))
    seeds = rng.uniform(-0.1 * size, 1.1 * size, (count, 2))
    rows, columns = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    found = cKDTree(seeds).query(np.stack([rows, columns], axis=-1).reshape(-1, 2), k=2)
    distances = np.asarray(found[0], dtype=np.float32).reshape(size, size, 2)
    return distances[..., 0], distances[..., 1], np.asarray(found[1])[:, 0].reshape(size, size)


def step(field: Field, width: float = 1.0) -> Field:
    """Smooth 0 to 1 transition of `field` through 0 over `width`: the coverage of a signed distance in pixels."""
    ramp = np.clip(field / np.float32(width) + np.float32(0.5), 0.0, 1.0)
    return (ramp * ramp * (3 - 2 * ramp)).astype(np.float32)


def mix(first: Field, second: Field, weight: Field) -> Field:
    """`first` where `weight` is 0, `second` where it is 1; `weight` is `(H, W)`, the others colours."""
    return (first + (second - first) * weight[..., None]).astype(np.float32)


def tint(colour: Field, value: Field) -> Field:
    """Colour `(3,)` scaled by the brightness `value` `(H, W)`."""
    return (value[..., None] * colour).astype(np.float32)


def relief(height: Field, angle: float) -> Field:
    """Shading of a height map (pixels) lit from `angle`: the slope towards the light."""
    along_rows, along_columns = np.gradient(height)
    return (-np.cos(angle) * along_columns - np.sin(angle) * along_rows).astype(np.float32)


def plain(colour: Field, size: int) -> Field:
    """A picture of one colour."""
    return np.broadcast_to(colour, (size, size, 3)).astype(np.float32)
