"""Makes the latent dataset: turned and mirrored crops that all show a part of a defect, encoded once."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from model.data.crops import COVERED, find_defects
from model.data.pixels import to_pixels
from model.data.windows import work_scale
from model.diffusion.base import Base
from model.diffusion.vae import encode, encode_batch
from model.runtime.progress import Meter, Progress
from model.runtime.timing import stage
from model.types import ImageArray, MaskArray, Pair
from service.core.options.anomalydiffusion import AnomalyTrainingConfig

OFF_CENTRE = 0.3
"""Farthest that the looked-at place of a defect lies from a crop's middle, as a share of the crop's side."""

TURNED = 0.5
"""Share of the crops that are turned; the others keep the photograph's own grid, and so its sharpness."""


@dataclass(frozen=True, slots=True)
class Crops:
    """Crops to train on: images `(r, r, 3)` uint8, masks `(r, r)` bool, and the number of each one's defect type."""

    images: list[ImageArray]
    masks: list[MaskArray]
    types: list[int]

    def __add__(self, other: Crops) -> Crops:
        return Crops(self.images + other.images, self.masks + other.masks, self.types + other.types)


@dataclass(frozen=True)
class LatentDataset:
    """Encoded crops.

    Attributes:
        latents: `(V, C_lat, h, w)`.
        masks: `(V, 1, r, r)` in {0, 1}.
        types: `(V,)` numbers of defect types.
    """

    latents: Tensor
    masks: Tensor
    types: Tensor

    def chosen(self, crops: Tensor | slice) -> LatentDataset:
        """Select crops by their numbers."""
        return LatentDataset(self.latents[crops], self.masks[crops], self.types[crops])

    @cached_property
    def _by_type(self) -> list[Tensor]:
        """Numbers of each type's crops, on the CPU."""
        types = self.types.cpu()
        return [(types == kind).nonzero()[:, 0] for kind in types.unique()]

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw numbers of crops, `(count,)`: first a type, so that each is as likely as another, then one of its crops.

        Args:
            generator: on the CPU.
        """
        if len(self._by_type) == 1:
            return torch.randint(len(self.types), (count,), generator=generator)
        types = torch.randint(len(self._by_type), (count,), generator=generator)
        places = torch.randint(2**62, (count,), generator=generator)
        crops = [self._by_type[kind] for kind in types.tolist()]
        return torch.stack([own[place % len(own)] for own, place in zip(crops, places.tolist(), strict=True)])

    def cells(self, factor: int) -> Tensor:
        """Return `(V, 1, h, w)`: 1 where a latent cell shows some of the defect."""
        return F.max_pool2d(self.masks, factor)

    def without(self, crops: slice) -> tuple[LatentDataset, LatentDataset]:
        """Split into all other crops, and these."""
        kept = torch.ones(len(self.types), dtype=torch.bool)
        kept[crops] = False
        return self.chosen(kept.nonzero()[:, 0].to(self.types.device)), self.chosen(crops)


def cut_crops(pairs: Sequence[Pair], types: Sequence[int], config: AnomalyTrainingConfig) -> Crops:
    """Cut `config.views` crops of every pair, at the scale that suits its defect.

    Crop `v` of pair `p` is drawn from `(seed, p, v)` alone.

    Args:
        types: number of each pair's defect type.
    """
    crops = Crops([], [], [])
    for number, (pair, kind) in enumerate(zip(pairs, types, strict=True)):
        labels, defects = find_defects(pair.mask)
        shown = np.isin(labels, defects)
        scale = work_scale(shown, config.view, config.resolution)
        for view in range(config.views):
            rng = np.random.default_rng([config.seed, number, view])
            image, mask = draw_crop(pair.image, shown, scale, config, rng)
            crops.images.append(image)
            crops.masks.append(mask)
            crops.types.append(kind)
    return crops


def draw_crop(
    image: ImageArray, mask: MaskArray, scale: float, config: AnomalyTrainingConfig, rng: np.random.Generator
) -> tuple[ImageArray, MaskArray]:
    """Draw a crop that shows some of the defect; as much of it as fits.

    Args:
        image: `(H, W, 3)` uint8.
        mask: `(H, W)` bool, the defect.
        scale: crop pixels per photograph pixel.
    """
    side = config.resolution
    angle = np.deg2rad(rng.uniform(-config.rotation, config.rotation)) if rng.random() < TURNED else 0.0
    mirror = rng.random(2) < 0.5
    flips = (config.flip_vertical and bool(mirror[0]), config.flip_horizontal and bool(mirror[1]))
    centre = _draw_centre(mask, side / scale, rng)
    for turn in (angle, 0.0):
        grid = _grid(centre, side, scale, turn, flips)
        share = _sampled(mask, grid, scale)
        cut = share >= min(COVERED, 0.6 * float(share.max())) if share.any() else share > 0
        if cut.any():
            break
    bands = [_sampled(band, grid, scale) for band in np.moveaxis(image, -1, 0)]
    return np.clip(np.stack(bands, -1), 0, 255).round().astype(np.uint8), cut


def _draw_centre(mask: MaskArray, extent: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw the middle of a crop of `extent` photograph pixels: all of the defect inside if it fits, else some of it."""
    places = np.argwhere(mask)
    seen = places[int(rng.integers(len(places)))]
    low, high = seen - OFF_CENTRE * extent, seen + OFF_CENTRE * extent
    first, last = places.min(0), places.max(0)
    fits = last - first + 1 <= extent
    low = np.where(fits, np.minimum(last + 1 - extent / 2, first + extent / 2), low)
    high = np.where(fits, np.maximum(last + 1 - extent / 2, first + extent / 2), high)
    # Inside the photograph as far as it is large enough.
    half, size = extent / 2, np.array(mask.shape)
    drawn = rng.uniform(np.minimum(low, high), np.maximum(low, high))
    return np.where(size >= extent, np.clip(drawn, half, size - half), size / 2).round()


def _grid(
    centre: NDArray[np.float64], side: int, scale: float, angle: float, flips: tuple[bool, bool]
) -> NDArray[np.float64]:
    """Return where in the photograph each pixel of a crop lies, `(2, r, r)`."""
    offsets = np.indices((side, side)) - (side - 1) / 2
    signs = np.where(flips, -1, 1)[:, None, None]
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.asarray(np.einsum("ij,jyx->iyx", turn, signs * offsets) / scale + centre[:, None, None] - 0.5)


def _sampled(band: NDArray[Any], grid: NDArray[np.float64], scale: float) -> NDArray[np.float32]:
    """Sample a band at a grid's places, without aliasing where it is reduced; beyond its border it is mirrored."""
    reach = 4 / min(scale, 1.0)
    size = np.array(band.shape)
    low = np.clip(np.floor(grid.min((1, 2)) - reach), 0, size - 1).astype(int)
    high = np.clip(np.ceil(grid.max((1, 2)) + reach), 1, size).astype(int)
    part = band[low[0] : high[0], low[1] : high[1]].astype(np.float32)
    if scale < 1:
        part = ndimage.gaussian_filter(part, 0.45 * np.sqrt(1 / scale**2 - 1), mode="mirror")
    found = ndimage.map_coordinates(part, grid - low[:, None, None], order=1, mode="mirror")
    return np.asarray(found, np.float32)


def encode_crops(base: Base, crops: Crops) -> Generator[Progress, None, LatentDataset]:
    """Encode the crops; yields progress, returns the dataset."""
    count = len(crops.images)
    meter = Meter("encode", count, "views")
    encoded = []
    batch = encode_batch(crops.images[0].shape[0])
    for begin in range(0, count, batch):
        with stage("encode"):
            encoded.append(encode(base.vae, to_pixels(crops.images[begin : begin + batch])))
        yield meter.report(min(begin + batch, count))
    return LatentDataset(
        latents=torch.cat(encoded),
        masks=torch.from_numpy(np.stack(crops.masks)).float()[:, None].to(base.device),
        types=torch.tensor(crops.types, device=base.device),
    )
