"""Chooses where on a normal image a defect is generated, and pastes the generated window back into it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from model.data.crops import Window
from model.data.drawing import draw_best
from model.types import GREY, ImageArray, MaskArray

JITTER = 0.08
"""Largest random shift from the real crop's position, as a share of the window's range."""

FEATHER = 1.5
"""Standard deviation of the blur that feathers the pasted region, model pixels."""

REACH = 3
"""How far the pasted region extends beyond the mask, model pixels."""


MIDDLE = 0.25
"""How far from a window's middle, as a share of its side, the place may lie that it is drawn around."""

WINDOW_TRIES, MOSTLY = 12, 0.5
"""How many windows are tried until defects may lie in this share of one; then the best of them is taken."""

SHOWN = 0.25
"""Least share of a window, placed like a real one, that must show the product. Those of breaks at a rim show 0.4 to
0.5."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Describes where a real defect's crop lay in its photograph.

    Attributes:
        name: name of the photograph.
        side: side of the crop, pixels.
        x, y: position in the range of possible ones, from 0 at the left or top edge to 1 at the right or bottom.
    """

    name: str
    side: int
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class NormalImage:
    """A defect-free photograph `(H, W, 3)` uint8 and its name."""

    name: str
    image: ImageArray

    @property
    def shape(self) -> tuple[int, int]:
        """Return height and width."""
        return self.image.shape[0], self.image.shape[1]


@dataclass(frozen=True, slots=True)
class Anchor:
    """Describes the window of a normal image that one pair is generated on.

    Attributes:
        place: number of the placement that it follows.
        mirrored: whether the placement's position was mirrored horizontally, vertically.
        size: of the window, as a multiple of the placement's.
        bounds: `(H, W)` bool, where the defect may lie on the normal image; None for everywhere.
        wanted: `(H, W)` bool, where the user wants it, also beside the product; None for everywhere.
    """

    normal: NormalImage
    window: Window
    place: int = 0
    mirrored: tuple[bool, bool] = (False, False)
    size: float = 1.0
    bounds: MaskArray | None = None
    wanted: MaskArray | None = None

    @property
    def pixels(self) -> ImageArray:
        """Return the window's pixels."""
        return self.normal.image[self.window.slices]

    def bounds_at(self, side: int) -> MaskArray | None:
        """Return where the defect may lie in the window, `(side, side)` bool; None for everywhere."""
        return None if self.bounds is None else self._shown(self.bounds, side)

    def wanted_at(self, side: int) -> MaskArray | None:
        """Return where the user wants the defect in the window, `(side, side)` bool; None for everywhere."""
        return None if self.wanted is None else self._shown(self.wanted, side)

    def _shown(self, where: MaskArray, side: int) -> MaskArray:
        shown = Image.fromarray(where[self.window.slices])
        return np.asarray(shown.resize((side, side), Image.Resampling.NEAREST))


Region = Callable[[NormalImage], MaskArray | None]
"""Gives a region of a normal image, `(H, W)` bool; None for everywhere."""


def draw_anchor(
    normals: Sequence[NormalImage],
    placements: Sequence[Placement],
    rng: np.random.Generator,
    flips: tuple[bool, bool],
    wanted: Region | None = None,
    sizes: tuple[float, float] = (1.0, 1.0),
    product: Region | None = None,
) -> Anchor:
    """Draw a normal image and a window on it, placed like one of the real defects, mirrored if allowed.

    Args:
        flips: whether positions may be mirrored horizontally and vertically.
        wanted: returns where on a normal image the user wants defects, `(H, W)` bool with some place in it; None for
            everywhere. Windows then lie around these places, wherever the real defects lay.
        sizes: smallest and largest size of the window, as multiples of the real one's.
        product: returns the product on a normal image, `(H, W)` bool, or None for none: a window that shows too
            little of it is redrawn around it, and defects are kept on it where any of it is wanted.
    """
    normal = normals[int(rng.integers(len(normals)))]
    number = _draw_place(placements, rng)
    place = placements[number]
    height, width = normal.image.shape[:2]
    size = float(np.exp(rng.uniform(*np.log(sizes)))) if sizes != (1.0, 1.0) else 1.0
    side = min(max(1, round(size * place.side)), height, width)
    mirror = rng.random(2) < 0.5
    mirrored = (flips[0] and bool(mirror[0]), flips[1] and bool(mirror[1]))
    jitter = rng.uniform(-JITTER, JITTER, 2)
    left = _start(1 - place.x if mirrored[0] else place.x, jitter[0], width - side)
    top = _start(1 - place.y if mirrored[1] else place.y, jitter[1], height - side)
    where = wanted(normal) if wanted is not None else None
    bounds = keep_to_product(where, product(normal) if product is not None else None)
    window = Window(left, top, side)
    if bounds is not None and (where is not None or bounds[window.slices].mean() < SHOWN):
        window = _window_at(bounds, side, rng)
    return Anchor(normal, window, number, mirrored, size, bounds, where)


def keep_to_product(where: MaskArray | None, product: MaskArray | None) -> MaskArray | None:
    """Return where a defect may lie, `(H, W)` bool or None for anywhere: on the product, if any of that is wanted.

    Args:
        where: `(H, W)` bool, where it is wanted; None for anywhere.
        product: `(H, W)` bool; None for none.
    """
    if where is None or product is None:
        return product if where is None else where
    both = where & product
    return both if both.any() else where


def _draw_place(placements: Sequence[Placement], rng: np.random.Generator) -> int:
    """Draw the number of a real defect; every photograph counts the same, however many defects it shows."""
    names = list(dict.fromkeys(place.name for place in placements))
    name = names[int(rng.integers(len(names)))]
    own = [number for number, place in enumerate(placements) if place.name == name]
    return own[int(rng.integers(len(own)))]


def _window_at(where: MaskArray, side: int, rng: np.random.Generator) -> Window:
    """Draw a window around one of the places where defects may lie, most of it such places if that can be."""
    rows, columns = np.nonzero(where)

    def draw_one() -> tuple[float, Window]:
        number = int(rng.integers(len(rows)))
        offsets = (side * rng.uniform(0.5 - MIDDLE, 0.5 + MIDDLE, 2)).astype(int)
        top, left = (
            int(np.clip(place[number] - offset, 0, full - side))
            for place, offset, full in zip((rows, columns), offsets, where.shape, strict=True)
        )
        window = Window(left, top, side)
        return float(where[window.slices].mean()), window

    return draw_best(draw_one, MOSTLY, WINDOW_TRIES)


def inner_border(anchor: Anchor, side: int, width: int) -> MaskArray:
    """Return `(side, side)` bool: the outer `width` pixels on the window's sides that lie inside the image."""
    height, full_width = anchor.normal.image.shape[:2]
    left, top, right, bottom = anchor.window.box
    border = np.zeros((side, side), np.bool_)
    border[:, :width] |= left > 0
    border[:width] |= top > 0
    border[:, -width:] |= right < full_width
    border[-width:] |= bottom < height
    return border


def _start(share: float, jitter: float, travel: int) -> int:
    """Draw the start of a window: at the edge if the real one was there, else near the real one's position."""
    moved = share if share in {0.0, 1.0} else share + jitter
    return int(np.clip(round(moved * travel), 0, travel))


def paste(
    anchor: Anchor, generated: ImageArray, reconstructed: ImageArray, mask: MaskArray
) -> tuple[ImageArray, MaskArray]:
    """Paste the generated window into the normal image: `N + α (G − R)`.

    G is the generated window and R the normal window after the same autoencoder, so that what the autoencoder changes
    by itself cancels and the photograph keeps its own grain. α is 1 on the mask and falls to 0 a few pixels outside it;
    where it is 0 the result equals the normal image bit for bit.

    Args:
        generated, reconstructed: `(r, r, 3)` uint8 at the model's resolution.
        mask: `(r, r)` bool.

    Returns:
        The whole image and the mask in it, at the normal image's size.
    """
    side = anchor.window.side
    alpha = feathered(mask)
    difference = generated.astype(np.float32) - reconstructed
    delta = np.stack([_resize(difference[..., channel] * alpha, side) for channel in range(3)], axis=-1)
    image = anchor.normal.image.copy()
    rows, columns = anchor.window.slices
    image[rows, columns] = np.clip(image[rows, columns] + np.round(delta), 0, 255).astype(np.uint8)
    return image, place_mask(anchor, mask)


def place_mask(anchor: Anchor, mask: MaskArray) -> MaskArray:
    """Place a mask `(r, r)` at the model's resolution in one of the normal image's size."""
    placed = np.zeros(anchor.normal.image.shape[:2], bool)
    placed[anchor.window.slices] = _resize(mask.astype(np.float32), anchor.window.side) >= 0.5
    return placed


def feathered(mask: MaskArray) -> NDArray[np.float32]:
    """Return a weight, `(r, r)` in [0, 1]: 1 on a mask, falling to 0 a few pixels outside it."""
    if not mask.any():
        return np.zeros(mask.shape, np.float32)
    distance = ndimage.distance_transform_edt(~mask)
    alpha = ndimage.gaussian_filter((distance <= REACH).astype(np.float32), FEATHER)
    return np.where(mask, np.float32(1), np.where(distance <= 2 * REACH, alpha, 0)).astype(np.float32)


def place_part(anchor: Anchor, part: ImageArray) -> ImageArray:
    """Place the generated part in a frame of the whole image's size, mid-grey elsewhere."""
    whole = np.full(anchor.normal.image.shape, GREY, np.uint8)
    side = anchor.window.side
    whole[anchor.window.slices] = np.asarray(Image.fromarray(part).resize((side, side), Image.Resampling.BICUBIC))
    return whole


def _resize(values: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    if values.shape[0] == side:
        return values
    return np.asarray(Image.fromarray(values).resize((side, side), Image.Resampling.BICUBIC))
