"""Renders the shipped sample pairs: dark ground metal plates, some with a hole, all of one production.

    python -m model.pretrain.procedural.samples

renders them again. Everything that makes the plates one product (steel, grind, light, camera) is fixed; their place,
grain and holes vary. The embedded base is not trained on them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from model.pretrain.procedural import colours
from model.pretrain.procedural.canvas import Canvas
from model.pretrain.procedural.defects import hole
from model.pretrain.procedural.noise import (
    Rng,
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
from model.pretrain.procedural.scene import Camera
from model.types import ImageArray, MaskArray

SAMPLES = Path(__file__).parents[2] / "samples"
"""Folder of the samples: `images/` and `masks/` of the defective plates, `normals/` of others without a defect."""

OBJECT, DEFECT = "metal plate", "hole"
SIDE = 160
PAIRS, NORMALS = 6, 8

HOLE_AREA = (150, 700)
"""Pixels of a hole that is kept, smallest and largest."""

INSET = 12
"""Pixels from the plate's edge within which no hole has its middle."""


def plate(rng: Rng) -> Canvas:
    """A plate that nearly fills the frame, ground from top to bottom, on a dark belt."""
    angle, centre = rng.normal(0, 0.015), rng.normal(0, 1.5, 2)
    u, v = rotated(SIDE, angle, (centre[0], centre[1]))
    half, corner = 0.45 * SIDE, 0.06 * SIDE
    beyond_u, beyond_v = np.abs(u) - (half - corner), np.abs(v) - (half - corner)
    outside = np.hypot(np.maximum(beyond_u, 0), np.maximum(beyond_v, 0))
    distance = (corner - outside - np.minimum(np.maximum(beyond_u, beyond_v), 0)).astype(np.float32)
    lines = oriented(rng, SIDE, 110, 1.2, np.pi / 2 + angle)
    bands = oriented(rng, SIDE, 190, 16, np.pi / 2 + angle)
    value = 1 + 0.06 * lines + 0.05 * bands + 0.03 * fractal(rng, SIDE, 30) + 0.02 * white(rng, SIDE)
    bevel = np.sqrt(np.clip(distance / 5, 0, 1)).astype(np.float32) * 5
    value = value * (1 + 0.3 * np.clip(relief(bevel, 0.9), -1, 1))
    belt = tint(colours.rgb(0.06, 0.06, 0.065), 1 + 0.1 * smooth(rng, SIDE, 2))
    steel = np.clip(tint(colours.rgb(0.40, 0.41, 0.43), value), 0, 1)
    return Canvas(mix(belt, steel, step(distance)), plain(colours.rgb(0.06, 0.06, 0.065), SIDE), distance)


def camera(rng: Rng) -> Camera:
    """The same light and exposure for every plate, with fresh sensor noise."""
    u, v = rotated(SIDE, 0.6)
    light = 1 + 0.12 * u / SIDE - 0.12 * (u * u + v * v) / SIDE**2
    noise = 0.008 * rng.standard_normal((SIDE, SIDE, 1), dtype=np.float32)
    return Camera(
        light.astype(np.float32), exposure=1.0, gamma=1.0, grey=True, blur=0.5, noise=noise.astype(np.float32)
    )


def sample_pair(number: int) -> tuple[ImageArray, MaskArray]:
    """Plate `number` with a hole: `(160, 160, 3)` uint8, and its mask `(160, 160)` bool."""
    rng = np.random.default_rng([number, SIDE, 1])
    canvas, lens = plate(rng), camera(rng)
    inner = Canvas(canvas.picture, canvas.behind, canvas.distance - INSET)
    while True:
        defect = hole(rng, inner, 1.0)
        mask = defect.coverage >= 0.4
        image = lens.photograph(mix(canvas.picture, defect.picture, defect.coverage))
        # A pit may also catch the light; this production's holes are all dark.
        if HOLE_AREA[0] <= mask.sum() <= HOLE_AREA[1] and image[mask].mean() < 0.5 * image[~mask].mean():
            return image, mask


def sample_normal(number: int) -> ImageArray:
    """Plate `number` of those without a defect: `(160, 160, 3)` uint8."""
    rng = np.random.default_rng([number, SIDE, 0])
    canvas = plate(rng)
    return camera(rng).photograph(canvas.picture)


def write_samples(folder: Path) -> None:
    """Render all samples into `folder`; the same pixels every time."""
    for name in ("images", "masks", "normals"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number in range(PAIRS):
        image, mask = sample_pair(number)
        Image.fromarray(image).save(folder / "images" / f"plate_{number:02d}.png", optimize=True)
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / "masks" / f"plate_{number:02d}.png", optimize=True)
    for number in range(NORMALS):
        Image.fromarray(sample_normal(number)).save(folder / "normals" / f"good_{number:02d}.png", optimize=True)


if __name__ == "__main__":
    write_samples(SAMPLES)
