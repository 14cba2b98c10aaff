"""BCM: background features injected into the global branch's self-attention (DualAnoDiff, eq. 5).

The background image `I_b = (1 − M_f) × I` is noised to the same timestep and run through the U-Net alone; the hidden
state φ(z_b) that enters each self-attention is kept. In the global branch, queries come from φ(z), keys and values from

    φ(z) + γ · MLP(φ(z_b)),        γ learnable, 0.1 at the start
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from model.masks.extraction import u2net_masks
from model.masks.u2net import U2Net
from model.types import ImageArray, anomaly_part

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


def background_images(images: Sequence[ImageArray], object_net: U2Net) -> list[ImageArray]:
    """`I_b = (1 − M_f) × I` on normalised pixels: images with the object (U²-Net's mask M_f) turned mid-grey.

    Args:
        images: `(H, W, 3)` uint8 each, all of one size.
        object_net: a U²-Net that finds objects.
    """
    found = u2net_masks(object_net, images)
    return [anomaly_part(image, ~mask) for image, mask in zip(images, found, strict=True)]
