"""Are defects that a model draws small as sharp and grainy as the photographs of many pixels that they are laid on?

    python -m bench.native_detail --size 2000 --side 512
    python -m bench.native_detail --data FOLDER --side 144

A base of 512 px draws what spans a photograph of 2 000 px at a quarter of its scale. Here each real defect is drawn as
well as that allows: made smaller, passed through the base's autoencoder, and enlarged. Then it is laid on a good part
as both methods do it, without detail and with that of the other photographs' defects. What is fine inside its mask is
compared with the real defect itself. Photographs are rendered, with blur and noise at their own scale, or read from a
folder.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from model.data.crops import Window, resize_image, resize_mask
from model.data.cutout import window_around
from model.data.detail import RealDetail
from model.data.laying import Generated, change_by, fade_around
from model.data.pixels import to_levels, to_pixels
from model.diffusion.base import Base, load_base
from model.diffusion.redrawing import lost_detail
from model.diffusion.vae import decode, encode
from model.evaluation.data import read_evaluation_data
from model.evaluation.sharpness import inner_sharpness
from model.pretrain.procedural.canvas import Canvas
from model.pretrain.procedural.defects import DEFECTS
from model.pretrain.procedural.noise import mix, plain
from model.pretrain.procedural.scene import Camera
from model.pretrain.procedural.surfaces import SURFACES
from model.types import ImageArray, MaskArray, Pair, is_grey
from service.core.errors import UsageError

RENDERED = (
    ("brushed metal", "dent"),
    ("magnet tile", "break"),
    ("asphalt", "crack"),
    ("leather", "hole"),
)
"""Surfaces and defects that are rendered."""

CAMERA_BLUR = 0.7
"""Deviation of a rendered photograph's blur, pixels, as of a sharp camera; it does not grow with the photograph."""

OCTAVES = (0.7, 1.4, 2.8, 5.6)
"""Deviations of the blurs between which a band of the spectrum lies, pixels."""

INSIDE = 3
"""Distance from the outline at which gradients and spectrum are measured, pixels; thin defects have no such place, and
are measured all over."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A real defect, `real`, and the good surface that it is laid on, `good`: crops of one side."""

    real: Pair
    good: ImageArray


@dataclass(frozen=True, slots=True)
class Measured:
    """What is fine inside masks, over the same of the real defects; the bands from the finest on.

    Attributes:
        detail: None where no defect leaves room for a ring around it.
    """

    detail: float | None
    gradient: float
    bands: tuple[float, ...]


def rendered(surface: str, kind: str, size: int, count: int) -> list[Shown]:
    """Render photographs of one surface with one kind of defect, `(size, size)`, and crop the defects."""
    shown: list[Shown] = []
    for number in range(10 * count):
        if len(shown) == count:
            break
        rng = np.random.default_rng([number, size])
        picture = np.clip(SURFACES[surface](rng, size), 0, 1).astype(np.float32)
        deep = plain(picture.mean(axis=(0, 1)) * np.float32(0.25), size)
        canvas = Canvas(picture, deep, np.full((size, size), size, np.float32))
        camera = replace(Camera.draw(rng, size, float(picture.mean())), blur=CAMERA_BLUR)
        defect = DEFECTS[kind](rng, canvas, 1.0)
        mask = np.asarray(defect.coverage >= 0.4)
        if mask.any():
            image = camera.photograph(mix(picture, defect.picture, defect.coverage))
            pair = Pair(f"{surface} {number}", image, mask)
            shown += filter(None, [_cropped(pair, camera.photograph(picture), size // 8, rng)])
    return shown


def _cropped(pair: Pair, good: ImageArray, least: int, rng: np.random.Generator) -> Shown | None:
    """Crop a defect with its surroundings; None where no square holds it."""
    box = window_around(pair.mask, "window", least, rng)
    if box is None:
        return None
    left, top, right, _ = box
    place = Window(left, top, right - left).slices
    return Shown(Pair(pair.name, pair.image[place], pair.mask[place]), good[place])


def photographed(folder: Path, side: int) -> Iterator[tuple[str, list[Shown]]]:
    """Read a folder's pairs, type by type, with good photographs of the same size to lay their defects on."""
    data = read_evaluation_data(folder)
    for defect, split in data.defects.items():
        shown = list[Shown]()
        for number, pair in enumerate(split.train):
            rng = np.random.default_rng(number)
            fits = [each.image for each in data.normals_train if each.image.shape == pair.image.shape]
            if fits:
                shown += filter(None, [_cropped(pair, fits[number % len(fits)], side, rng)])
        yield defect, shown


def drawn(base: Base, window: ImageArray, side: int, *, grey: bool) -> NDArray[np.float32]:
    """Draw a window as the base would at best, `(s, s, 3)`, grey levels, at its own scale: no larger than `side`."""
    small = resize_image(window, min(side, window.shape[0]) // base.factor * base.factor)
    return to_levels(decode(base.vae, encode(base.vae, to_pixels([small])))[0], grey=grey)


def laid(base: Base, shown: Sequence[Shown], side: int) -> Iterator[tuple[ImageArray, ImageArray, float]]:
    """Yield each defect laid without detail, with detail, and the seconds that both took."""
    grey = all(is_grey(each.real.image) for each in shown)
    for number, each in enumerate(shown):
        began = time.monotonic()
        others = [other.real for place, other in enumerate(shown) if place != number]
        detail = lost_detail(
            base.vae, others, lambda mask: min(1.0, side / mask.shape[0]), side, base.factor, grey=grey
        )
        image, reconstructed = (drawn(base, window, side, grey=grey) for window in (each.real.image, each.good))
        alpha = fade_around(resize_mask(each.real.mask, image.shape[0]))
        generated = Generated(image, reconstructed, alpha, filled=True)
        without, detailed = (_lay(generated, each, chosen, number) for chosen in (None, detail))
        yield without, detailed, time.monotonic() - began


def _lay(generated: Generated, shown: Shown, detail: RealDetail | None, seed: int) -> ImageArray:
    size = (shown.real.mask.shape[1], shown.real.mask.shape[0])
    change = change_by(generated, shown.good, shown.real.mask, size, detail, seed).whole
    return np.clip(shown.good + change, 0, 255).round().astype(np.uint8)


def measured(images: Sequence[ImageArray], shown: Sequence[Shown]) -> Measured:
    """Measure laid defects against the real ones."""
    reals = [each.real.image for each in shown]
    masks = [each.real.mask for each in shown]
    own, real = (inner_sharpness(zip(group, masks, strict=True)) for group in (images, reals))
    fine = np.array([_fine(image, mask) for image, mask in zip(images, masks, strict=True)])
    of_reals = np.array([_fine(image, mask) for image, mask in zip(reals, masks, strict=True)])
    gradient, *bands = np.exp(np.log(fine / of_reals).mean(0)).tolist()
    return Measured(own / real if own is not None and real is not None else None, gradient, tuple(bands))


def _fine(image: ImageArray, mask: MaskArray) -> list[float]:
    """Return the mean gradient inside a mask, and the deviation in each band of the spectrum, grey levels."""
    inner = ndimage.binary_erosion(mask, iterations=INSIDE)
    place = inner if inner.any() else mask
    grey = image.mean(2)
    gradient = np.hypot(*np.gradient(grey))[place].mean()
    blurred = [ndimage.gaussian_filter(grey, sigma) for sigma in OCTAVES]
    bands = [np.sqrt(np.square((one - two)[place]).mean()) for one, two in pairwise([grey, *blurred])]
    return [float(each) + 1e-3 for each in (gradient, *bands)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure rendered photographs, or a folder's, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.native_detail", description=__doc__)
    parser.add_argument("--base", default="mini", help="name or folder of the base whose autoencoder is used")
    parser.add_argument("--side", type=int, default=512, help="side of the base's pictures, pixels")
    parser.add_argument("--size", type=int, default=2000, help="side of rendered photographs, pixels")
    parser.add_argument("--count", type=int, default=3, help="photographs of each rendered type")
    parser.add_argument("--data", type=Path, help="folder of real photographs with splits.json")
    parser.add_argument("--pictures", type=Path, help="folder for real, laid and detailed defects side by side")
    options = parser.parse_args(arguments)
    try:
        base = load_base(options.base)
        groups = (
            photographed(options.data, options.side)
            if options.data
            else ((" ".join(each), rendered(*each, options.size, options.count)) for each in RENDERED)
        )
        for name, shown in groups:
            if len(shown) > 1:
                _report(base, name, shown, options.side, options.pictures)
    except UsageError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def _report(base: Base, name: str, shown: Sequence[Shown], side: int, pictures: Path | None) -> None:
    results = list(laid(base, shown, side))
    lengths = [each.real.mask.shape[0] for each in shown]
    scale = np.mean([min(1.0, side / length) for length in lengths])
    seconds = np.mean([each[2] for each in results])
    sys.stdout.write(
        f"{name}: {len(shown)} defects in windows of {min(lengths)} to {max(lengths)} px, "
        f"drawn at {scale:.2f} of their scale, {seconds:.1f} s each\n"
    )
    for title, images in (("without", [each[0] for each in results]), ("with", [each[1] for each in results])):
        one = measured(images, shown)
        bands = ", ".join(f"{each:.2f}" for each in one.bands)
        finest = "not measured" if one.detail is None else f"{one.detail:.2f}"
        sys.stdout.write(f"  {title:7} detail: finest {finest}, gradient {one.gradient:.2f}, octaves {bands}\n")
    sys.stdout.flush()
    if pictures is not None:
        pictures.mkdir(parents=True, exist_ok=True)
        for number, (each, (without, detailed, _)) in enumerate(zip(shown, results, strict=True)):
            row = np.concatenate([each.real.image, without, detailed], 1)
            Image.fromarray(row).save(pictures / f"{name.replace(' ', '-')}-{number}.png")


if __name__ == "__main__":
    sys.exit(main())
