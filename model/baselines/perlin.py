"""Lays noise-shaped patches of foreign texture on normal photographs (DRAEM: Zavrtanik et al. 2021, section 3.3).

It knows nothing of the real defects but how large they are. Outside of the mask `M` the picture is the normal `I`;
inside, it is `(1 − β) I + β A` with a texture `A` and an opacity `β`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from model.baselines.sampler import Draft, Scene
from model.baselines.textures import draw_texture
from model.data.crops import Window
from model.data.drawing import draw_best
from model.data.placement import Anchor, NormalImage, inner_border
from model.types import Candidate, ImageArray, MaskArray
from service.core.options.baselines import PerlinConfig

CELLS = 6
"""Noise has 1, 2, 4 … cells per side, up to this many doublings, along each axis on its own."""

LEVEL = 0.5
"""Noise above it is the patch."""

OPACITY = (0.1, 1.0)
"""Range of the opacity `β`."""

SPECK = 8
"""Smallest part of a patch, pixels."""

TRIES = 24
"""How many fields of noise, and how many places on a product, are tried."""

ON_PRODUCT = 0.5
"""Share of a window that should show the product."""


def draw(draft: Draft, settings: PerlinConfig) -> Candidate:
    """Draw a candidate."""
    scene, normal, rng = draft.scene, draft.normal, draft.rng
    product = scene.product_in(normal)
    window = _draw_window(scene, normal, product, rng)
    anchor = Anchor(normal, window)
    cut = inner_border(anchor, window.side, 1)
    allowed = ~cut if product is None else product[window.slices] & ~cut
    mask = _draw_mask(allowed if allowed.any() else ~cut, cut, _areas(scene, settings, window.side), rng)
    others = [each.image for each in scene.normals if each.name != normal.name] or [normal.image]
    texture = draw_texture(others, window.side, rng)
    if scene.adapter.grey:
        texture = np.repeat(texture.mean(2, keepdims=True).round().astype(np.uint8), 3, 2)
    image, placed = normal.image.copy(), np.zeros(normal.image.shape[:2], np.bool_)
    image[window.slices] = _mixed(anchor.pixels, texture, mask, rng.uniform(*OPACITY))
    placed[window.slices] = mask
    return Candidate(draft.index, draft.seed, image, placed, normal=normal.name, window=window.box)


def _mixed(picture: ImageArray, texture: ImageArray, mask: MaskArray, opacity: float) -> ImageArray:
    mixed = (1 - opacity) * picture + opacity * texture
    return np.where(mask[..., None], mixed.round().astype(np.uint8), picture)


def _areas(scene: Scene, settings: PerlinConfig, side: int) -> tuple[float, float]:
    """Return the least and the greatest area of a patch in a window of this side, pixels."""
    shares = [float(reference.mask.mean()) for reference in scene.adapter.references]
    least = max(settings.smallest_area * min(shares) * side**2, SPECK)
    return least, max(settings.largest_area * max(shares) * side**2, least)


def _draw_window(scene: Scene, normal: NormalImage, product: MaskArray | None, rng: np.random.Generator) -> Window:
    """Draw a window as large as one of the real crops, on the product if one was found."""
    placements = scene.adapter.placements
    height, width = normal.image.shape[:2]
    side = min(placements[int(rng.integers(len(placements)))].side, height, width)

    def draw_one() -> tuple[float, Window]:
        window = Window(int(rng.integers(width - side + 1)), int(rng.integers(height - side + 1)), side)
        return 1.0 if product is None else float(product[window.slices].mean()), window

    return draw_best(draw_one, ON_PRODUCT, TRIES)


def _draw_mask(allowed: MaskArray, cut: MaskArray, areas: tuple[float, float], rng: np.random.Generator) -> MaskArray:
    """Draw parts of thresholded noise until they have an area in the given range; they are not cut off by the window.

    Args:
        allowed: `(s, s)` bool, not empty, where the patch may be.
        cut: `(s, s)` bool, pixels on sides of the window that lie inside the photograph; none of them is allowed.
        areas: least and greatest area, pixels.
    """
    most = min(float(np.exp(rng.uniform(*np.log(areas)))), 0.9 * float(allowed.sum()))
    noise = perlin_noise(allowed.shape[0], rng)
    for _ in range(TRIES):
        mask = allowed & _some_parts(noise > LEVEL, cut, most, rng)
        if mask.sum() >= min(areas[0], most):
            return mask
        noise = perlin_noise(allowed.shape[0], rng)
    return allowed & (noise >= np.sort(noise[allowed])[-max(1, int(most))])


def _some_parts(mask: MaskArray, cut: MaskArray, most: float, rng: np.random.Generator) -> MaskArray:
    """Choose parts of a mask at random, as many as have at most an area together, none that is cut off or a speck."""
    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    areas[np.unique(labels[cut])] = 0
    chosen, total = np.zeros(count + 1, np.bool_), 0
    for part in 1 + rng.permutation(count):
        if areas[part] >= SPECK and total + areas[part] <= most:
            chosen[part] = True
            total += int(areas[part])
    return np.asarray(chosen[labels])


def perlin_noise(side: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw Perlin noise `(side, side)`, about -1 to 1, of random scales along both axes, turned at random."""
    cells = 2 ** rng.integers(0, CELLS, 2)
    angle = rng.uniform(-np.pi / 2, np.pi / 2)
    directions = rng.uniform(0, 2 * np.pi, cells)
    y, x = (np.indices((side, side)) + 0.5) / side - 0.5
    turned = np.stack([y * np.cos(angle) - x * np.sin(angle), y * np.sin(angle) + x * np.cos(angle)])
    place = turned * cells[:, None, None] + rng.uniform(0, 1, 2)[:, None, None] * cells[:, None, None]
    cell = np.floor(place).astype(int)
    row, column = place - cell

    def slope(down: int, right: int) -> NDArray[np.float64]:
        direction = directions[(cell[0] + down) % cells[0], (cell[1] + right) % cells[1]]
        return np.asarray(np.cos(direction) * (row - down) + np.sin(direction) * (column - right))

    lower, across = _fade(row), _fade(column)
    upper_row = slope(0, 0) + across * (slope(0, 1) - slope(0, 0))
    lower_row = slope(1, 0) + across * (slope(1, 1) - slope(1, 0))
    return np.asarray(np.sqrt(2) * (upper_row + lower * (lower_row - upper_row)))


def _fade(share: NDArray[np.float64]) -> NDArray[np.float64]:
    return share**3 * (share * (6 * share - 15) + 10)
