"""Makes textures that are foreign to a product: drawn ones, and altered crops of photographs.

DRAEM takes its anomalies from a data set of textures (DTD). None is needed here: plain fields between two colours, and
the normals themselves after strong changes of colour and direction (as in NSA, Schlüter et al. 2022), stand in for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps
from scipy import ndimage

from model.data.crops import resize_image
from model.types import ImageArray

Rng = np.random.Generator
Field = NDArray[np.float64]

LARGEST = 256
"""Side that textures are drawn at, at most, pixels."""

DRAWN = 0.5
"""Share of the drawn textures; the others come from photographs."""


def draw_texture(photographs: Sequence[ImageArray], side: int, rng: Rng) -> ImageArray:
    """Make a texture `(side, side, 3)` uint8.

    Args:
        photographs: `(H, W, 3)` uint8 each.
    """
    small = min(side, LARGEST)
    drawn = _drawn(small, rng) if rng.random() < DRAWN else _cropped(photographs, small, rng)
    return resize_image(_altered(drawn, rng), side)


def _drawn(side: int, rng: Rng) -> ImageArray:
    field = FIELDS[int(rng.integers(len(FIELDS)))](side, rng)
    share = (field - field.min()) / max(float(np.ptp(field)), 1e-9)
    ends = rng.uniform(0, 255, (2, 3))
    colours = ends[0] + share[..., None] * (ends[1] - ends[0]) + rng.normal(0, rng.uniform(0, 12), (side, side, 1))
    return np.clip(colours, 0, 255).round().astype(np.uint8)


def _cloud(side: int, rng: Rng) -> Field:
    widths = side / 2.0 ** np.arange(3, 8)
    octaves = [ndimage.gaussian_filter(rng.standard_normal((side, side)), width, mode="wrap") for width in widths]
    return np.asarray(sum(octave / octave.std() * width**0.7 for octave, width in zip(octaves, widths, strict=True)))


def _streaks(side: int, rng: Rng) -> Field:
    white = rng.standard_normal((2 * side, 2 * side))
    long = ndimage.gaussian_filter(white, (rng.uniform(0.5, 2.5), side * rng.uniform(0.05, 0.3)), mode="wrap")
    turned = ndimage.rotate(long, rng.uniform(0, 180), reshape=False, order=1, mode="wrap")
    return np.asarray(turned[side // 2 : side // 2 + side, side // 2 : side // 2 + side])


def _weave(side: int, rng: Rng) -> Field:
    angle, (first, second) = rng.uniform(0, np.pi), rng.uniform(4, 24, 2)
    y, x = np.indices((side, side))
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    return np.asarray(np.sin(2 * np.pi * along / first) * np.sin(2 * np.pi * across / second))


def _spots(side: int, rng: Rng) -> Field:
    field = ndimage.gaussian_filter(rng.standard_normal((side, side)), rng.uniform(1.5, 8), mode="wrap")
    return np.tanh(3 * (field / field.std() - rng.uniform(-0.5, 1)))


FIELDS: tuple[Callable[[int, Rng], Field], ...] = (_cloud, _streaks, _weave, _spots)


def _cropped(photographs: Sequence[ImageArray], side: int, rng: Rng) -> ImageArray:
    photograph = photographs[int(rng.integers(len(photographs)))]
    height, width = photograph.shape[:2]
    length = max(1, int(min(height, width) * rng.uniform(0.3, 1.0)))
    top, left = int(rng.integers(height - length + 1)), int(rng.integers(width - length + 1))
    crop = photograph[top : top + length, left : left + length]
    return resize_image(np.ascontiguousarray(np.rot90(crop, int(rng.integers(4)))), side)


def _altered(image: ImageArray, rng: Rng) -> ImageArray:
    """Apply three different alterations, as DRAEM does."""
    picture = Image.fromarray(image)
    for number in rng.permutation(len(ALTERATIONS))[:3]:
        picture = ALTERATIONS[number](picture, rng)
    return np.asarray(picture)


def _hue(picture: Image.Image, rng: Rng) -> Image.Image:
    hue, saturation, value = picture.convert("HSV").split()
    shift = int(rng.integers(256))
    turned = hue.point([(level + shift) % 256 for level in range(256)])
    return Image.merge("HSV", (turned, saturation, value)).convert("RGB")


ALTERATIONS: tuple[Callable[[Image.Image, Rng], Image.Image], ...] = (
    lambda picture, rng: ImageEnhance.Contrast(picture).enhance(rng.uniform(0.5, 2.0)),
    lambda picture, rng: ImageEnhance.Brightness(picture).enhance(rng.uniform(0.5, 1.6)),
    lambda picture, rng: ImageEnhance.Sharpness(picture).enhance(rng.uniform(0, 6)),
    lambda picture, rng: ImageOps.solarize(picture, int(rng.integers(32, 129))),
    lambda picture, rng: ImageOps.posterize(picture, int(rng.integers(3, 7))),
    lambda picture, _: ImageOps.invert(picture),
    lambda picture, _: ImageOps.autocontrast(picture),
    lambda picture, _: ImageOps.equalize(picture),
    lambda picture, rng: ImageOps.mirror(picture).rotate(
        rng.uniform(-45, 45), Image.Resampling.BILINEAR, fillcolor=None
    ),
    _hue,
)
