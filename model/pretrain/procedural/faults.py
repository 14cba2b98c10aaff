"""Draws faults of printed circuits: tracks cut, joined, bitten and blotched.

They read the picture's two tones from its brightness, so they do not depend on how the circuit was drawn;
the rarer tone counts as the tracks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from model.pretrain.procedural.alteration import Defect, DefectKind
from model.pretrain.procedural.canvas import Canvas, Point, blob, extent, stroke, wander
from model.pretrain.procedural.noise import Field, Rng, rotated, smooth, step, white


@dataclass(frozen=True)
class Layout:
    """Distance inside one tone (pixels, negative outside) and pictures of either tone."""

    distance: Field
    tone: Field
    other: Field

    def reversed(self) -> Layout:
        """The same with the tones exchanged."""
        return Layout(-self.distance, self.other, self.tone)


def _threshold(values: Field) -> float:
    """Otsu: the brightness that separates two tones best."""
    counts, edges = np.histogram(values, 64)
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1]
    above = below[-1] + counts[-1] - below
    sums = np.cumsum(counts * centres)
    means = sums[:-1] / np.maximum(below, 1), (sums[-1] - sums[:-1]) / np.maximum(above, 1)
    spread = below * above * (means[0] - means[1]) ** 2
    return float(edges[1 + int(spread.argmax())])


def _tone(rng: Rng, canvas: Canvas, chosen: NDArray[np.bool_]) -> Field:
    """A picture of the chosen pixels' usual colour, with their grain."""
    # A part of one tone in view has no pixel of the other.
    pixels = canvas.picture[chosen] if chosen.any() else canvas.picture.reshape(-1, 3)
    pixels = pixels[:: max(len(pixels) // 1000, 1)]
    colour = np.median(pixels, axis=0)
    grain = min(float(np.median(np.abs(pixels - colour))) * 1.5, 0.04)
    return np.clip(colour + grain * white(rng, canvas.size)[..., None], 0, 1).astype(np.float32)


def _tracks(rng: Rng, canvas: Canvas) -> Layout:
    brightness, on_part = canvas.picture.mean(axis=2), canvas.distance > 0
    bright = brightness > _threshold(brightness[on_part])
    if not 0.02 < float(bright[on_part].mean()) < 0.98:
        bright = brightness > np.median(brightness[on_part])
    track = bright if bright[on_part].mean() < 0.5 else ~bright
    distance = np.where(track, distance_transform_edt(track) - 0.5, 0.5 - distance_transform_edt(~track))
    return Layout(
        distance.astype(np.float32), _tone(rng, canvas, track & on_part), _tone(rng, canvas, ~track & on_part)
    )


def _point(rng: Rng, canvas: Canvas, chosen: NDArray[np.bool_]) -> Point:
    """A chosen pixel on the part, as far as there is one in view."""
    half, rim = (canvas.size - 1) / 2, int(3 * canvas.k)
    choices = np.argwhere((chosen & (canvas.distance > 0))[rim:-rim, rim:-rim]) + rim
    if not len(choices):
        choices = np.argwhere(canvas.distance > 0)
    row, column = choices[rng.integers(len(choices))] - half
    return float(row), float(column)


def _narrowest(layout: Layout, at: Point) -> tuple[float, float, float]:
    """The shortest way across the tone through a point: its angle and how far it goes either way, in pixels."""
    size = layout.distance.shape[0]
    angles, steps = np.arange(16) * np.pi / 16, np.arange(size // 2) + 0.5
    headings = np.stack([angles, angles + np.pi])[..., None]
    rows = np.rint(at[0] + steps * np.sin(headings) + (size - 1) / 2).astype(int)
    columns = np.rint(at[1] + steps * np.cos(headings) + (size - 1) / 2).astype(int)
    within = (rows >= 0) & (rows < size) & (columns >= 0) & (columns < size)
    left = within & (layout.distance[rows % size, columns % size] <= 0)
    reach = np.where(left.any(axis=-1), steps[left.argmax(axis=-1)], float(size))
    best = int(reach.sum(axis=0).argmin())
    return float(angles[best]), float(reach[0, best]), float(reach[1, best])


def _across(rng: Rng, canvas: Canvas, layout: Layout) -> Defect:
    """The tone severed by a ragged strip of the other one."""
    k, distance = canvas.k, layout.distance
    at = min(
        (_point(rng, canvas, distance > 0.8 * k) for _ in range(5)),
        key=lambda point: sum(_narrowest(layout, point)[1:]),
    )
    angle, ahead, back = _narrowest(layout, at)
    u, v = rotated(canvas.size, angle + float(rng.normal(0, 0.15)), at)
    half = extent(rng, canvas, 1.0, 6.0)
    sway = smooth(rng, canvas.size, 10 * k) * rng.uniform(0, 1.5) * k + smooth(rng, canvas.size, 3 * k) * 0.4 * k
    waist = 1 + rng.uniform(-0.3, 0.8) * (2 * np.clip((u + back) / (ahead + back), 0, 1) - 1) ** 2
    strip = half * waist - np.abs(v + sway)
    within = np.minimum(np.minimum(ahead + 1.5 - u, u + back + 1.5), distance + 0.8)
    return Defect(layout.other, step(np.minimum(strip, within).astype(np.float32)))


def _at_border(rng: Rng, canvas: Canvas, layout: Layout) -> Defect:
    """A bite out of the tone at its border."""
    at = _point(rng, canvas, np.abs(layout.distance) < 1.2)
    shape = blob(rng, canvas, at, extent(rng, canvas, 1.8, 8.0), rng.uniform(0.1, 0.5), rng.uniform(1, 2.5))
    return Defect(layout.other, step(np.minimum(shape, layout.distance + 0.8)))


def _amid(rng: Rng, canvas: Canvas, layout: Layout) -> Defect:
    """A patch of the other tone, blob or worm, within the tone."""
    k, deepest = canvas.k, float(layout.distance[canvas.distance > 0].max())
    at = _point(rng, canvas, layout.distance > min(rng.uniform(2, 8) * k, 0.7 * deepest))
    if rng.random() < 0.35:
        path = wander(rng, at, rng.uniform(0, np.pi), extent(rng, canvas, 5, 22), 0.25, rng.normal(0, 1.5))
        ends = np.linspace(rng.uniform(0.5, 1.5), rng.uniform(0.5, 1.5), len(path))
        return Defect(layout.other, stroke(canvas.size, path, ends * extent(rng, canvas, 1.8, 5)))
    radius = extent(rng, canvas, 1.6, 10)
    return Defect(layout.other, step(blob(rng, canvas, at, radius, rng.uniform(0.1, 0.5), rng.uniform(1, 3))))


def open_track(rng: Rng, canvas: Canvas, _strength: float) -> Defect:
    return _across(rng, canvas, _tracks(rng, canvas))


def short(rng: Rng, canvas: Canvas, _strength: float) -> Defect:
    return _across(rng, canvas, _tracks(rng, canvas).reversed())


def mouse_bite(rng: Rng, canvas: Canvas, _strength: float) -> Defect:
    return _at_border(rng, canvas, _tracks(rng, canvas))


def spur(rng: Rng, canvas: Canvas, _strength: float) -> Defect:
    return _at_border(rng, canvas, _tracks(rng, canvas).reversed())


def pin_hole(rng: Rng, canvas: Canvas, _strength: float) -> Defect:
    return _amid(rng, canvas, _tracks(rng, canvas))


def spurious_copper(rng: Rng, canvas: Canvas, _strength: float) -> Defect:
    return _amid(rng, canvas, _tracks(rng, canvas).reversed())


CIRCUIT_FAULTS: dict[str, DefectKind] = {
    "open": open_track,
    "short": short,
    "mouse bite": mouse_bite,
    "spur": spur,
    "pin hole": pin_hole,
    "spurious copper": spurious_copper,
}
"""Every circuit fault by the word captions use."""
