"""Between pixels and latents; and the bank of encoded views that training draws from."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from model.background import background_images
from model.base import Base
from model.config import TrainingConfig
from model.pixels import to_pixels
from model.progress import Meter, Progress
from model.rows import in_fours
from model.stages import stage
from model.types import ImageArray, MaskArray, Pair, anomaly_part
from model.u2net import U2Net
from model.views import cut_image, cut_mask, draw_window

ENCODE_PIXELS, ENCODE_MOST = 16 * 128**2, 16
"""Pixels and pictures encoded at once, at most: on GPUs sixteen of 512 × 512 would take more than 12 GB."""


@dataclass(frozen=True, slots=True)
class Views:
    """Views to learn from in pixels, all `(r, r, …)`: images, masks and anomaly parts."""

    images: list[ImageArray]
    masks: list[MaskArray]
    parts: list[ImageArray]

    def __add__(self, other: Views) -> Views:
        """These, then those."""
        return Views(self.images + other.images, self.masks + other.masks, self.parts + other.parts)

    def chosen(self, views: Sequence[int]) -> Views:
        """Some of them, by their numbers."""
        images, masks, parts = self.images, self.masks, self.parts
        return Views([images[view] for view in views], [masks[view] for view in views], [parts[view] for view in views])

    def distinct(self) -> tuple[list[int], list[int]]:
        """Numbers of the first view of every kind, and of every view which of these it is equal to."""
        seen: dict[bytes, int] = {}
        firsts: list[int] = []
        kinds: list[int] = []
        for view, (image, mask) in enumerate(zip(self.images, self.masks, strict=True)):
            kind = seen.setdefault(image.tobytes() + mask.tobytes(), len(firsts))
            if kind == len(firsts):
                firsts.append(view)
            kinds.append(kind)
        return firsts, kinds


@dataclass(frozen=True, slots=True)
class LatentBank:
    """The views, encoded once.

    Attributes:
        latents: `(2, V, C_lat, h, w)` of images and anomaly parts.
        masks: `(V, 1, h, w)` share of defect per cell, in [0, 1].
        backgrounds: `(V, C_lat, h, w)` of the background images, or None without BCM.
        prompts: `(V,)` numbers of the prompts that the views are learned under; None if those are always the first.
        kinds: how many views of each kind there are, one kind after the other, and what share of every batch these are;
            empty where all views are alike.
    """

    latents: Tensor
    masks: Tensor
    backgrounds: Tensor | None
    prompts: Tensor | None = None
    kinds: tuple[tuple[int, float], ...] = ()

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Numbers of `count` views for a batch.

        Of a kind with the share s there are s × `count`, rounded up or down at random where that is not whole.
        """
        if not self.kinds:
            return torch.randint(self.latents.shape[1], (count,), generator=generator)
        sizes, shares = (torch.tensor(column) for column in zip(*self.kinds, strict=True))
        places = (torch.arange(count) + torch.rand(1, generator=generator)) / count
        kinds = torch.bucketize(places, shares.cumsum(0)[:-1], right=True)
        within = (torch.rand(count, generator=generator) * sizes[kinds]).long()
        return (sizes.cumsum(0) - sizes)[kinds] + within

    def chosen(self, views: Tensor | slice) -> LatentBank:
        """Some of the views, by their numbers."""
        behind = None if self.backgrounds is None else self.backgrounds[views]
        prompts = None if self.prompts is None else self.prompts[views]
        return LatentBank(self.latents[:, views], self.masks[views], behind, prompts)

    def without(self, views: slice) -> tuple[LatentBank, LatentBank]:
        """All views but these, and these."""
        kept = torch.ones(len(self.masks), dtype=torch.bool)
        kept[views] = False
        return self.chosen(kept.nonzero()[:, 0].to(self.masks.device)), self.chosen(views)


@torch.no_grad()
def encode(vae: AutoencoderKL, pixels: Tensor) -> Tensor:
    """Pixels `(B, 3, H, W)` in [-1, 1] → latents `(B, C_lat, H/f, W/f)`: the posterior's mean × the scaling factor."""
    pixels = pixels.to(vae.device, vae.dtype, memory_format=torch.channels_last)
    mean = in_fours(lambda rows: vae.encode(rows).latent_dist.mean, pixels)
    return mean.float() * vae.config.scaling_factor


@torch.no_grad()
def decode(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """Latents → pixels in about [-1, 1]."""
    latents = (latents / vae.config.scaling_factor).to(vae.dtype, memory_format=torch.channels_last)
    pixels = in_fours(lambda rows: vae.decode(rows).sample, latents)
    return pixels.float()


def cut_views(pairs: Sequence[Pair], config: TrainingConfig) -> Views:
    """Cut and mirror `config.views` views of every pair, image and mask alike.

    View `v` of pair `p` is drawn from `(seed, p, v)` alone.
    """
    images: list[ImageArray] = []
    masks: list[MaskArray] = []
    for number, pair in enumerate(pairs):
        for view in range(config.views):
            draw = np.random.default_rng([config.seed, number, view])
            window = draw_window(pair.mask, config.view, config.resolution, draw)
            steps_x = -1 if config.flip_horizontal and draw.random() < 0.5 else 1
            steps_y = -1 if config.flip_vertical and draw.random() < 0.5 else 1
            mirrored = np.s_[::steps_y, ::steps_x]
            images.append(np.ascontiguousarray(cut_image(pair.image, window, config.resolution)[mirrored]))
            masks.append(np.ascontiguousarray(cut_mask(pair.mask, window, config.resolution)[mirrored]))
    return Views(images, masks, [anomaly_part(image, mask) for image, mask in zip(images, masks, strict=True)])


def encode_batch(side: int) -> int:
    """How many square pictures are encoded at once: an even number, since on CPUs they go two by two."""
    return min(ENCODE_MOST, max(2, ENCODE_PIXELS // side**2 // 2 * 2))


def encode_views(base: Base, views: Views, object_net: U2Net | None) -> Generator[Progress, None, LatentBank]:
    """Encode images, parts and (with a network that finds objects) backgrounds; yields progress, returns the bank.

    Equal views, as of square photographs seen whole and not mirrored, are encoded once.
    """
    cells = F.avg_pool2d(torch.from_numpy(np.stack(views.masks)).float()[:, None], base.factor)
    firsts, kinds = views.distinct()
    views = views.chosen(firsts)
    count = len(firsts)
    meter = Meter("encode", count, "views")
    encoded: list[Tensor] = []
    backgrounds: list[Tensor] = []
    batch = encode_batch(views.images[0].shape[0])
    for begin in range(0, count, batch):
        chunk = slice(begin, begin + batch)
        with stage("encode"):
            both = [encode(base.vae, to_pixels(group[chunk])) for group in (views.images, views.parts)]
            encoded.append(torch.stack(both))
            if object_net is not None:
                behind = background_images(views.images[chunk], object_net)
                backgrounds.append(encode(base.vae, to_pixels(behind)))
        yield meter.report(min(begin + batch, count))
    return LatentBank(
        latents=torch.cat(encoded, dim=1)[:, kinds],
        masks=cells.to(base.device),
        backgrounds=torch.cat(backgrounds)[kinds] if backgrounds else None,
    )


def grey_cell(parts: Tensor) -> Tensor:
    """The latent of mid-grey, `(C, 1, 1)`: the median over those of real parts `(B, C, h, w)`, most of which is grey.

    Not that of a flat grey picture: autoencoders with group normalisation answer strangely to one.
    """
    return parts.movedim(1, -1).flatten(0, -2).median(0).values[:, None, None]
