"""BCM: background features injected into the global branch's self-attention (DualAnoDiff, eq. 5).

The background image `I_b = (1 − M_f ∪ M_a) × I` is noised to the same timestep and run through the U-Net alone; the
hidden state φ(z_b) that enters each self-attention is kept. In the global branch, queries come from φ(z), keys and
values from

    φ(z) + γ · MLP(φ(z_b)),        γ learnable, 0.1 at the start

M_f is the mask of the product, which U²-Net finds, or which a plain backdrop tells. It may leave the defect out, for
example a gap through which the tray shows, so the defect's own mask M_a is taken from the background as well (the paper
takes M_f alone).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from model.data.crops import Window, draw_window, resize_share
from model.data.placement import Anchor
from model.masks.objects import FULL_FRAME, Objects, find_products
from model.masks.u2net import U2Net
from model.types import ImageArray, MaskArray, Pair, anomaly_part
from service.core.errors import UsageError
from service.core.options.dualanodiff import TrainingConfig

GAMMA_START = 0.1
"""Initial γ (paper, below eq. 5)."""


class BackgroundCompensation(nn.Module):
    """Adaptive fusion of one self-attention of width `channels`; the MLP is `hidden` wide (released code: 320)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(channels, hidden), nn.SiLU(), nn.Linear(hidden, channels))
        self.gamma = nn.Parameter(torch.tensor(GAMMA_START))

    def forward(self, hidden: Tensor, background: Tensor) -> Tensor:
        """φ(z) `(B, N, C)` and φ(z_b) `(B or 1, N, C)` → the input of keys and values, `(B, N, C)`."""
        out: Tensor = hidden + self.gamma * self.mlp(background)
        return out


def background_image(image: ImageArray, product: MaskArray, defect: MaskArray | None = None) -> ImageArray:
    """Make `I_b = (1 − M_f ∪ M_a) × I` on normalised pixels: product and defect become mid-grey.

    Args:
        image: `(H, W, 3)` uint8.
        product: `(H, W)` bool, M_f.
        defect: `(H, W)` bool, M_a; None for a normal image.
    """
    hidden = product if defect is None else product | defect
    return anomaly_part(image, ~hidden)


def product_masks(pairs: Sequence[Pair], object_net: U2Net) -> list[MaskArray]:
    """Find the product in every photograph, `(H, W)` bool each; True everywhere where none is found.

    A photograph without a product that stands out has no background to learn from, so its whole background is grey.
    """
    found = find_products(object_net, pairs)
    return [np.ones_like(pair.mask) if mask is None else mask for pair, mask in zip(pairs, found, strict=True)]


def product_in_window(objects: Objects, anchor: Anchor, resolution: int) -> MaskArray:
    """Cut out where a normal image's window shows the product, `(r, r)` bool; True everywhere where none is found."""
    found = objects.in_normal(anchor.normal.name)
    if found is None:
        return np.ones((resolution, resolution), np.bool_)
    return cut_object(found, anchor.window, resolution)


def cut_object(found: MaskArray, window: Window, resolution: int) -> MaskArray:
    """Cut a window from an object mask at the model's resolution; it may be empty or full there."""
    return resize_share(found[window.slices], resolution) >= 0.5


def check_backgrounds(pairs: Sequence[Pair], object_net: U2Net, config: TrainingConfig) -> list[str]:
    """Find the photographs in which no product stands out from a background; returns a note about them.

    Raises:
        UsageError: if that is so in all of them, or if crops show nothing but product: then there is no background to
            compensate.
    """
    blind, visible = [], False
    for number, (pair, found) in enumerate(zip(pairs, find_products(object_net, pairs), strict=True)):
        if found is None:
            blind.append(pair.name)
        else:
            rng = np.random.default_rng([config.seed, number])
            windows = [draw_window(pair.mask, config.view, config.resolution, rng) for _ in range(config.views)]
            visible |= any((found | pair.mask)[window.slices].mean() < FULL_FRAME for window in windows)
    advice = "check these photographs, provide a network that finds your product with --object-net, or turn bcm off"
    if len(blind) == len(pairs):
        raise UsageError(
            "bcm learns from the background around the product, but in no photograph a product before a background is "
            f"found: {', '.join(blind)}; {advice}"
        )
    if not visible:
        raise UsageError(
            f"bcm learns from the background around the product, but {config.view} crops of these photographs show "
            "nothing but the product: set view to whole, or turn bcm off"
        )
    return [f"bcm learns no background from {', '.join(blind)}: {advice}"] if blind else []
