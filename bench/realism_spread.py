"""`python -m bench.realism_spread`: how much the statistics of one type of defect vary, on rendered surfaces.

Every type is one rendered surface, one photographer's light, and one kind of defect that is drawn on it several times.
The table goes to `model.quality.realism.SPREAD`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from model.pretrain.procedural.alteration import Defect
from model.pretrain.procedural.canvas import Canvas
from model.pretrain.procedural.defects import DEFECTS
from model.pretrain.procedural.faults import CIRCUIT_FAULTS
from model.pretrain.procedural.noise import Rng, mix, plain
from model.pretrain.procedural.scene import LARGEST_MASK, SMALLEST_MASK, VISIBLE_LINE, Camera
from model.pretrain.procedural.surfaces import SURFACES
from model.quality.realism import SPREAD, Statistics, statistics
from model.types import ImageArray, MaskArray

SIZE = 128
"""Side of a picture, pixels."""

CIRCUIT = "printed circuit"
"""The surface on which faults of circuits are drawn, and nothing else."""

EXPOSURE = 0.1
"""Largest change of the exposure within a type, as a share."""


def rendered_type(number: int, count: int) -> list[Statistics]:
    """Describe defects of one type; fewer than two where hardly one of its kind shows on its surface.

    Args:
        number: chooses surface, light and kind; the same number always gives the same.
        count: defects to draw.
    """
    rng = np.random.default_rng([number, SIZE])
    surfaces = [name for name in SURFACES if name != CIRCUIT]
    kinds = [name for name in DEFECTS if name not in CIRCUIT_FAULTS]
    of_circuits = number % 6 == 0
    surface = CIRCUIT if of_circuits else str(rng.choice(surfaces))
    kind = str(rng.choice(list(CIRCUIT_FAULTS) if of_circuits else kinds))
    picture = np.clip(SURFACES[surface](rng, SIZE), 0, 1).astype(np.float32)
    deep = plain(picture.mean(axis=(0, 1)) * np.float32(0.25), SIZE)
    canvas = Canvas(picture, deep, np.full((SIZE, SIZE), SIZE, dtype=np.float32))
    camera = Camera.draw(rng, SIZE, float(picture.mean()), scanned=of_circuits)
    drawn = (_photographed(rng, canvas, camera, DEFECTS[kind](rng, canvas, 1.0)) for _ in range(count))
    return [statistics(*each) for each in drawn if each is not None]


def _photographed(rng: Rng, canvas: Canvas, camera: Camera, defect: Defect) -> tuple[ImageArray, MaskArray] | None:
    """Photograph a defect; None if it cannot be seen or is no part of the surface but nearly all of it."""
    shown = replace(
        camera,
        exposure=camera.exposure * float(rng.uniform(1 - EXPOSURE, 1 + EXPOSURE)),
        noise=np.roll(camera.noise, tuple(rng.integers(SIZE, size=2)), axis=(0, 1)),
    )
    mask = defect.coverage >= 0.4
    if not SMALLEST_MASK <= mask.sum() <= LARGEST_MASK * mask.size:
        return None
    image = shown.photograph(mix(canvas.picture, defect.picture, defect.coverage))
    change = np.abs(image.astype(np.int16) - shown.photograph(canvas.picture))[mask].mean()
    return (image, mask) if change >= VISIBLE_LINE else None


def rendered_types(types: int, count: int) -> Iterator[NDArray[np.float64]]:
    """Yield `(n, F)` statistics of each type with at least two defects that can be seen."""
    for number in range(types):
        found = rendered_type(number, count)
        if len(found) > 1:
            yield np.stack(found)


def within(types: Sequence[NDArray[np.float64]]) -> Statistics:
    """Return the standard deviation within a type: the root of the mean variance over the types."""
    return np.sqrt(np.mean([of_one.var(axis=0, ddof=1) for of_one in types], axis=0))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.realism_spread", description=__doc__)
    parser.add_argument("--types", type=int, default=240, help="types of defects to render")
    parser.add_argument("--count", type=int, default=8, help="defects of each type")
    chosen = parser.parse_args(arguments)
    types = list(rendered_types(chosen.types, chosen.count))
    for name, deviation in zip(SPREAD, within(types), strict=True):
        sys.stdout.write(f'    "{name}": {deviation:.2f},\n')


if __name__ == "__main__":
    main()
