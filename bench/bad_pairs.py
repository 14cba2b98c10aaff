"""Bad pairs of known kinds, to measure how many of each the quality checks reject.

Carriers are real defects laid on good parts of other photographs; most kinds damage a carrier or its mask in one way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from model.data.placement import NormalImage, Placement, draw_anchor
from model.types import Candidate, ImageArray, MaskArray, Pair

Rng = np.random.Generator

SOFTNESS = 0.5
"""Standard deviation of the blur of a laid defect's edge, pixels."""

GAINS = (0.4, 2.5)
"""Limits of a carrier's correction of brightness to the good part."""

EROSION = 2
ALIKE = 0.85
"""Intersection over union from which a changed mask counts as unchanged; such pairs are left out."""

PLACES = 4
"""Number of good parts and places tried for a carrier; the one whose surroundings are most alike is used."""


@dataclass(frozen=True, slots=True)
class Material:
    """What pairs of one defect type are made of.

    Attributes:
        few: crops of the few-shot pairs, which the checks know.
        held, places: crops of other photographs of the defect, and where they lay.
        normals: good parts.
        before: name of a held-out photograph → the same part without its defect, where there is one.
    """

    few: Sequence[Pair]
    few_places: Sequence[Placement]
    held: Sequence[Pair]
    places: Sequence[Placement]
    normals: Sequence[NormalImage]
    before: Mapping[str, tuple[NormalImage, ImageArray, MaskArray]]


Make = Callable[[Material, Rng], "Candidate | None"]


def carrier(material: Material, rng: Rng) -> Candidate | None:
    """A held-out defect on a good part: a pair as it should be."""
    known = [number for number, real in enumerate(material.held) if real.name in material.before]
    number = int(rng.choice(known or len(material.held)))
    if known:
        return _before_and_after(material, material.held[number], rng)
    return _laid(material, material.held[number], material.places[number], rng)


def held_out(material: Material) -> Iterator[Candidate]:
    """Yield every held-out pair, without a good part."""
    for number, real in enumerate(material.held):
        if real.mask.any():
            yield Candidate(number, 0, real.image, real.mask)


def white_noise(material: Material, rng: Rng) -> Candidate | None:
    """White noise in the shape of a real defect."""
    return _painted(material, rng, lambda shape: rng.integers(0, 256, shape, dtype=np.uint8))


def flat_white(material: Material, rng: Rng) -> Candidate | None:
    """Plain white in the shape of a real defect."""
    return _painted(material, rng, lambda shape: np.full(shape, 255, np.uint8))


def black_rectangle(material: Material, rng: Rng) -> Candidate | None:
    """A black rectangle as large as a real defect's box."""
    return _painted(material, rng, lambda shape: np.zeros(shape, np.uint8), boxed=True)


def untouched(material: Material, rng: Rng) -> Candidate | None:
    """A good part as it is, with a real defect's mask."""
    return _painted(material, rng, None)


def copied(material: Material, rng: Rng) -> Candidate | None:
    """A few-shot defect on another good part, pixel by pixel."""
    number = int(rng.integers(len(material.few)))
    return _laid(material, material.few[number], material.few_places[number], rng, matched=bool(rng.integers(2)))


def copied_turned(material: Material, rng: Rng) -> Candidate | None:
    """A few-shot defect, turned by one to three right angles."""
    number = int(rng.integers(len(material.few)))
    real, turns = material.few[number], int(rng.integers(1, 4))
    turned = Pair(real.name, np.rot90(real.image, turns).copy(), np.rot90(real.mask, turns).copy())
    place = material.few_places[number]
    return _laid(material, turned, place, rng, matched=bool(rng.integers(2)))


def eroded(material: Material, rng: Rng) -> Candidate | None:
    """A mask smaller than its defect by two pixels all round."""
    return _remasked(
        material, rng, lambda mask: ndimage.binary_erosion(mask, iterations=EROSION, border_value=1), alike=1.0
    )


def boxed(material: Material, rng: Rng) -> Candidate | None:
    """The box of a defect for its mask."""
    return _remasked(material, rng, _box)


def shifted(material: Material, rng: Rng) -> Candidate | None:
    """A mask beside its defect by a quarter of its height and width."""
    signs = rng.choice([-1, 1], 2)
    return _remasked(material, rng, lambda mask: _shifted(mask, 0.25 * signs))


def with_healthy(material: Material, rng: Rng) -> Candidate | None:
    """A mask that also covers as much of the healthy surface beside the defect."""

    def grown(mask: MaskArray) -> MaskArray:
        outline = np.argwhere(ndimage.binary_dilation(mask) & ~mask)
        middle = outline[int(rng.integers(len(outline)))]
        rows, columns = np.indices(mask.shape)
        away = np.where(mask, np.inf, np.hypot(rows - middle[0], columns - middle[1]))
        return mask | (away <= np.sort(away, axis=None)[int(mask.sum()) - 1])

    return _remasked(material, rng, grown)


KINDS: dict[str, Make] = {
    "white noise patch": white_noise,
    "flat white patch": flat_white,
    "black rectangle": black_rectangle,
    "mask eroded by 2 px": eroded,
    "mask = bounding box": boxed,
    "mask shifted by a quarter": shifted,
    "healthy area in the mask": with_healthy,
    "untouched good part": untouched,
    "identical real defect": copied,
    "the same turned by 90°": copied_turned,
}
"""Kind of bad pair → how one is made; None where a draw came out as no bad pair."""


def make(kind: Make, material: Material, count: int, seed: int) -> list[Candidate]:
    """Make pairs of a kind; fewer than `count` where few draws succeed."""
    rng = np.random.default_rng(seed)
    made = (kind(material, rng) for _ in range(3 * count))
    return [one for one in made if one is not None][:count]


def _laid(material: Material, real: Pair, place: Placement, rng: Rng, *, matched: bool = True) -> Candidate | None:
    """Lay a crop's defect on a good part, in brightness matched to its surroundings or as it is."""
    side = real.mask.shape[0]
    normals = [each for each in material.normals if min(each.image.shape[:2]) >= side]
    if not normals or not real.mask.any():
        return None
    anchors = [draw_anchor(normals, [place], rng, (False, False)) for _ in range(PLACES)]
    anchor = min(anchors, key=lambda each: float(np.abs(each.pixels.astype(float) - real.image)[~real.mask].mean()))
    ring = ndimage.binary_dilation(real.mask, iterations=5) & ~ndimage.binary_dilation(real.mask)
    defect = real.image.astype(np.float32)
    if matched and ring.any():
        # One gain for all channels: gains of their own would turn a grey grain into a coloured one.
        there, here = anchor.pixels[ring].mean(axis=0), defect[ring].mean(axis=0)
        gain = np.clip((there.mean() + 1) / (here.mean() + 1), *GAINS)
        defect = gain * defect + (there - gain * here)
    alpha = ndimage.gaussian_filter(real.mask.astype(np.float32), SOFTNESS)[..., None]
    window = anchor.pixels + alpha * (defect - anchor.pixels)
    image, mask = anchor.normal.image.copy(), np.zeros(anchor.normal.image.shape[:2], np.bool_)
    image[anchor.window.slices] = np.clip(np.round(window), 0, 255).astype(np.uint8)
    mask[anchor.window.slices] = real.mask
    return Candidate(0, 0, image, mask, normal=anchor.normal.name, window=anchor.window.box)


def _before_and_after(material: Material, real: Pair, rng: Rng) -> Candidate:
    normal, image, mask = material.before[real.name]
    rows, columns = np.nonzero(mask)
    side, (height, width) = real.mask.shape[0], mask.shape
    top = int(np.clip(rows.mean() - side / 2 + rng.integers(-8, 9), 0, height - side))
    left = int(np.clip(columns.mean() - side / 2 + rng.integers(-8, 9), 0, width - side))
    return Candidate(0, 0, image, mask, normal=normal.name, window=(left, top, left + side, top + side))


def _painted(
    material: Material,
    rng: Rng,
    paint: Callable[[tuple[int, ...]], NDArray[np.uint8]] | None,
    *,
    boxed: bool = False,
) -> Candidate | None:
    """Paint the place of a held-out defect on a good part."""
    number = int(rng.integers(len(material.held)))
    real = material.held[number]
    normals = [each for each in material.normals if min(each.image.shape[:2]) >= real.mask.shape[0]]
    if not normals or not real.mask.any():
        return None
    anchor = draw_anchor(normals, [material.places[number]], rng, (False, False))
    image, mask = anchor.normal.image.copy(), np.zeros(anchor.normal.image.shape[:2], np.bool_)
    mask[anchor.window.slices] = _box(real.mask) if boxed else real.mask
    if paint is not None:
        grey = bool((np.ptp(image, axis=2) <= 2).all())
        colour = paint((int(mask.sum()), 1 if grey else 3))
        image[mask] = colour
    return Candidate(0, 0, image, mask, normal=anchor.normal.name, window=anchor.window.box)


def _remasked(
    material: Material, rng: Rng, change: Callable[[MaskArray], MaskArray], alike: float = ALIKE
) -> Candidate | None:
    whole = carrier(material, rng)
    if whole is None or whole.window is None:
        return None
    left, top, right, bottom = whole.window
    place = slice(top, bottom), slice(left, right)
    mask = np.zeros_like(whole.mask)
    mask[place] = change(whole.mask[place])
    shared = int((mask & whole.mask).sum()) / max(1, int((mask | whole.mask).sum()))
    return replace(whole, mask=mask) if mask.any() and shared < alike else None


def _box(mask: MaskArray) -> MaskArray:
    box = np.zeros_like(mask)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
    return box


def _shifted(mask: MaskArray, shares: NDArray[np.float64]) -> MaskArray:
    """Move a mask by signed shares of its box's height and width, at least a pixel."""
    box = _box(mask)
    extent = np.array([box.any(axis=1).sum(), box.any(axis=0).sum()])
    steps = np.sign(shares) * np.maximum(1, np.round(np.abs(shares) * extent))
    moved: MaskArray = ndimage.shift(mask.astype(np.uint8), steps, order=0).astype(np.bool_)
    return moved
