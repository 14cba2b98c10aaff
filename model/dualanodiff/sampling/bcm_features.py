"""Computes BCM's features in sampling: once per background, taken from normal images, and timestep.

Features φ(z_b) depend on background, timestep and global prompt alone. Anchored pairs use their own windows as
backgrounds. Of other pairs, fifty share a background (released code), so its features are kept between batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from model.data.crops import resize_image
from model.data.pixels import to_pixels
from model.data.placement import Anchor, NormalImage, draw_anchor
from model.diffusion.vae import encode
from model.dualanodiff.adapter import DualAnoDiffAdapter
from model.dualanodiff.bcm import background_image, product_in_window
from model.dualanodiff.model import DualAnoDiffModel
from model.dualanodiff.sampling.loop import Features
from model.masks.objects import Objects
from model.masks.u2net import U2Net
from model.runtime import switches
from model.runtime.seeding import draw_noise, pair_seed
from model.runtime.switches import Switch
from model.types import ImageArray

BACKGROUND_SHARE = 50
"""Number of consecutive pairs that share a BCM background if they are not anchored (released code)."""

SHARED = 2**40
"""First index of shared backgrounds; smaller ones are indices of pairs."""

KEPT_BYTES = 2**30
"""Limit of features kept per shared background; a timestep of Stable Diffusion 1.5 takes 23 MB in half precision."""

MOST_KEPT = 2 * KEPT_BYTES
"""Where one shared background ends in a batch and the next begins."""


class Backgrounds:
    """Computes the features of some backgrounds at any timestep.

    Args:
        text: `(1, L, D)`, the global prompt.
        images: background images `(r, r, 3)` uint8, made from windows of normal images.
        seeds: seeds of the backgrounds' noise.
        room: bytes of features to keep for later batches.
    """

    def __init__(
        self,
        model: DualAnoDiffModel,
        text: Tensor,
        images: Sequence[ImageArray],
        seeds: Sequence[int],
        *,
        room: int = 0,
    ) -> None:
        self._model = model
        self._text = text.expand(len(images), -1, -1)
        self._latents = encode(model.vae, to_pixels(images))
        shape = (3, *self._latents.shape[1:])
        self._noise = torch.stack([draw_noise(seed, shape)[2] for seed in seeds]).to(model.device)
        self._room = room
        self._kept: dict[int, dict[str, Tensor]] = {}

    def features(self, number: int, timestep: Tensor) -> dict[str, Tensor]:
        """Return attention name → φ(z_b), one row per background.

        Args:
            number: number of the denoising step, which determines the timestep.
        """
        if number in self._kept:
            return self._kept[number]
        schedule = self._model.schedule
        noisy = schedule.add_noise(self._latents, self._noise, timestep.expand(len(self._latents)))
        features = self._model.denoiser.background_features(noisy, timestep, self._text)
        size = sum(value.nbytes for value in features.values())
        if size <= self._room and switches.on(Switch.KEPT_FEATURES):
            self._room -= size
            self._kept[number] = features
        return features


class Compensation:
    """Makes BCM's features for the batches of one request.

    Args:
        adapter: an adapter prepared for sampling.
        seed: seed of the request.
        text: `(1, L, D)`, the global prompt.
    """

    def __init__(
        self, adapter: DualAnoDiffAdapter, seed: int, text: Tensor, normals: Sequence[NormalImage], object_net: U2Net
    ) -> None:
        self._adapter = adapter
        self._seed = seed
        self._text = text
        self._normals = normals
        self._objects = Objects(object_net, normals)
        self._shared: dict[int, Backgrounds] = {}

    def anchored(self, anchors: Sequence[Anchor], seeds: Sequence[int], *, guided: bool) -> Features:
        """Make features for pairs with one background each."""
        backgrounds = self._backgrounds(anchors, seeds)
        copies = 2 if guided else 1

        def features(number: int, timestep: Tensor) -> dict[str, Tensor]:
            return {name: value.repeat(copies, 1, 1) for name, value in backgrounds.features(number, timestep).items()}

        return features

    def shared(self, indices: Sequence[int], *, guided: bool) -> Features:
        """Make features for pairs of consecutive indices; a single row if all share one background."""
        runs = [(number, len(list(run))) for number, run in groupby(index // BACKGROUND_SHARE for index in indices)]
        self._shared = {number: self._shared.get(number) or self._make_shared(number) for number, _ in runs}
        backgrounds = [(self._shared[number], count) for number, count in runs]
        if len(backgrounds) == 1:
            return backgrounds[0][0].features
        copies = 2 if guided else 1

        def features(number: int, timestep: Tensor) -> dict[str, Tensor]:
            found = [(background.features(number, timestep), count) for background, count in backgrounds]
            rows = {name: [each[name].expand(count, -1, -1) for each, count in found] for name in found[0][0]}
            return {name: torch.cat(parts * copies) for name, parts in rows.items()}

        return features

    def _make_shared(self, number: int) -> Backgrounds:
        noise_seed = pair_seed(self._seed, SHARED + number)
        return self._backgrounds([self.shared_anchor(number)], [noise_seed], room=KEPT_BYTES)

    def shared_anchor(self, number: int) -> Anchor:
        """Draw the window that fifty unanchored pairs share as background."""
        rng = np.random.default_rng([self._seed, number, BACKGROUND_SHARE])
        return draw_anchor(self._normals, self._adapter.placements, rng, self._adapter.model.config.flips)

    def _backgrounds(self, anchors: Sequence[Anchor], seeds: Sequence[int], *, room: int = 0) -> Backgrounds:
        model, side = self._adapter.model, self._adapter.resolution
        images = [
            background_image(resize_image(anchor.pixels, side), product_in_window(self._objects, anchor, side))
            for anchor in anchors
        ]
        return Backgrounds(model, self._text, images, seeds, room=room)
