"""Makes the latent dataset: crops of the training pairs, encoded once."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model.data.crops import cut_image, cut_mask, draw_detail, draw_window
from model.data.pixels import to_pixels
from model.diffusion.base import Base
from model.diffusion.vae import encode, encode_batch
from model.dualanodiff.bcm import background_image, cut_object
from model.runtime import switches
from model.runtime.distinct import first_occurrences
from model.runtime.progress import Meter, Progress
from model.runtime.switches import Switch
from model.runtime.timing import stage
from model.types import ImageArray, MaskArray, Pair, anomaly_part
from service.core.options.dualanodiff import TrainingConfig


@dataclass(frozen=True, slots=True)
class Crops:
    """Crops to train on, in pixels, all `(r, r, …)`: images, masks, anomaly parts, and, for BCM, background images."""

    images: list[ImageArray]
    masks: list[MaskArray]
    parts: list[ImageArray]
    backgrounds: list[ImageArray] | None = None

    def __add__(self, other: Crops) -> Crops:
        """Concatenate the crops."""
        behind = None
        if self.backgrounds is not None and other.backgrounds is not None:
            behind = self.backgrounds + other.backgrounds
        return Crops(self.images + other.images, self.masks + other.masks, self.parts + other.parts, behind)

    def chosen(self, crops: Sequence[int]) -> Crops:
        """Select crops by their numbers."""
        images, masks, parts = self.images, self.masks, self.parts
        return Crops(
            [images[crop] for crop in crops],
            [masks[crop] for crop in crops],
            [parts[crop] for crop in crops],
            None if self.backgrounds is None else [self.backgrounds[crop] for crop in crops],
        )

    def distinct(self) -> tuple[Crops, list[int]]:
        """Return the crops without repetitions, and for every crop its number among them."""
        if not switches.on(Switch.DISTINCT_CROPS):
            return self, list(range(len(self.images)))
        groups = [self.images, self.masks] + ([self.backgrounds] if self.backgrounds is not None else [])
        contents = [b"".join(each.tobytes() for each in crop) for crop in zip(*groups, strict=True)]
        firsts, numbers = first_occurrences(contents)
        return self.chosen(firsts), numbers


@dataclass(frozen=True, slots=True)
class LatentDataset:
    """Encoded crops.

    Attributes:
        latents: `(2, V, C_lat, h, w)` of images and anomaly parts.
        masks: `(V, 1, h, w)` share of defect per cell, in [0, 1].
        backgrounds: `(V, C_lat, h, w)` of the background images, or None without BCM.
        prompts: `(V,)` numbers of the crops' prompts; None if all have the first.
        kinds: number of crops of each kind, in order, and their share of every batch; empty if all are of one kind.
    """

    latents: Tensor
    masks: Tensor
    backgrounds: Tensor | None
    prompts: Tensor | None = None
    kinds: tuple[tuple[int, float], ...] = ()

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw the numbers of `count` crops for a batch.

        A kind with the share s gets s × `count` crops, rounded up or down at random if that is not whole.
        """
        if not self.kinds:
            return torch.randint(self.latents.shape[1], (count,), generator=generator)
        sizes, shares = (torch.tensor(column) for column in zip(*self.kinds, strict=True))
        places = (torch.arange(count) + torch.rand(1, generator=generator)) / count
        kinds = torch.bucketize(places, shares.cumsum(0)[:-1], right=True)
        within = (torch.rand(count, generator=generator) * sizes[kinds]).long()
        return (sizes.cumsum(0) - sizes)[kinds] + within

    def chosen(self, crops: Tensor | slice) -> LatentDataset:
        """Select crops by their numbers."""
        behind = None if self.backgrounds is None else self.backgrounds[crops]
        prompts = None if self.prompts is None else self.prompts[crops]
        return LatentDataset(self.latents[:, crops], self.masks[crops], behind, prompts)

    def without(self, crops: slice) -> tuple[LatentDataset, LatentDataset]:
        """Split into all other crops, and these."""
        kept = torch.ones(len(self.masks), dtype=torch.bool)
        kept[crops] = False
        return self.chosen(kept.nonzero()[:, 0].to(self.masks.device)), self.chosen(crops)


def cut_crops(pairs: Sequence[Pair], config: TrainingConfig, products: Sequence[MaskArray] | None = None) -> Crops:
    """Cut and mirror `config.views` crops of every pair, image and mask alike.

    Crop `v` of pair `p` is drawn from `(seed, p, v)` alone. The first ones show each of the pair's defects once, so
    that small ones are learned beside large ones.

    Args:
        products: `(H, W)` bool, the product in every photograph, to make the crops' backgrounds; None for none.
    """
    images: list[ImageArray] = []
    masks: list[MaskArray] = []
    backgrounds: list[ImageArray] = []
    draw = draw_window if config.bcm else draw_detail
    for number, pair in enumerate(pairs):
        for crop in range(config.views):
            rng = np.random.default_rng([config.seed, number, crop])
            window = draw(pair.mask, config.view, config.resolution, rng, turn=crop)
            steps_x = -1 if config.flip_horizontal and rng.random() < 0.5 else 1
            steps_y = -1 if config.flip_vertical and rng.random() < 0.5 else 1
            mirrored = np.s_[::steps_y, ::steps_x]
            images.append(np.ascontiguousarray(cut_image(pair.image, window, config.resolution)[mirrored]))
            masks.append(np.ascontiguousarray(cut_mask(pair.mask, window, config.resolution)[mirrored]))
            if products is not None:
                product = cut_object(products[number], window, config.resolution)[mirrored]
                backgrounds.append(background_image(images[-1], product, masks[-1]))
    parts = [anomaly_part(image, mask) for image, mask in zip(images, masks, strict=True)]
    return Crops(images, masks, parts, None if products is None else backgrounds)


def encode_crops(base: Base, crops: Crops) -> Generator[Progress, None, LatentDataset]:
    """Encode images, parts and (where there are some) backgrounds; yields progress, returns the dataset.

    Square photographs that are used whole and not mirrored give equal crops, which are encoded once.
    """
    cells = F.avg_pool2d(torch.from_numpy(np.stack(crops.masks)).float()[:, None], base.factor)
    crops, numbers = crops.distinct()
    count = len(crops.images)
    meter = Meter("encode", count, "views")
    encoded: list[Tensor] = []
    backgrounds: list[Tensor] = []
    batch = encode_batch(crops.images[0].shape[0])
    for begin in range(0, count, batch):
        chunk = slice(begin, begin + batch)
        with stage("encode"):
            both = [encode(base.vae, to_pixels(group[chunk])) for group in (crops.images, crops.parts)]
            encoded.append(torch.stack(both))
            if crops.backgrounds is not None:
                backgrounds.append(encode(base.vae, to_pixels(crops.backgrounds[chunk])))
        yield meter.report(min(begin + batch, count))
    return LatentDataset(
        latents=torch.cat(encoded, dim=1)[:, numbers],
        masks=cells.to(base.device),
        backgrounds=torch.cat(backgrounds)[numbers] if backgrounds else None,
    )


def grey_cell(parts: Tensor) -> Tensor:
    """Return the latent of mid-grey, `(C, 1, 1)`: the median over real parts `(B, C, h, w)`, most of which is grey.

    A flat grey image is not encoded for it, because autoencoders with group normalisation distort one.
    """
    return parts.movedim(1, -1).flatten(0, -2).median(0).values[:, None, None]
