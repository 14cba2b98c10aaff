"""Shows a U-Net which cells it fills: the mask and its surroundings, as further channels of its input.

The paper's model learns where the mask lies from four words of the prompt alone; a small base cannot tell a place that
exactly. Models made for inpainting see it: Stable Diffusion's has five channels more than the plain one, the mask and
the latents around it. Here the mask comes at the photograph's resolution, one channel per pixel of a latent cell, since
a crack is narrower than a cell. The new weights begin at 0, where the U-Net is the base's.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn


class InpaintingInput(nn.Module):
    """First convolution of a U-Net that sees further channels.

    Args:
        conv: the base's first convolution, perhaps with a LoRA.
        channels: number of further channels.
    """

    def __init__(self, conv: nn.Module, channels: int) -> None:
        super().__init__()
        plain = conv.get_base_layer() if isinstance(conv, LoraLayer) else conv
        if not isinstance(plain, nn.Conv2d):
            raise TypeError(f"the U-Net begins with {type(plain).__name__} instead of a convolution")
        self.conv = conv
        self.seen = plain.in_channels
        self.shown = nn.Conv2d(channels, plain.out_channels, 3, padding=1)
        nn.init.zeros_(self.shown.weight)
        nn.init.zeros_(self.shown.bias)  # type: ignore[arg-type]  # it has one

    def forward(self, x: Tensor) -> Tensor:
        """Return `(B, C, h, w)` of `(B, C_lat + channels, h, w)`."""
        latents, shown = x.tensor_split([self.seen], dim=1)
        found: Tensor = self.conv(latents) + self.shown(shown)
        return found


def show_masks(unet: UNet2DConditionModel, factor: int) -> nn.Conv2d:
    """Let a U-Net see masks, in place; returns the weights that are new.

    Args:
        factor: pixels per latent cell, along one side.
    """
    channels = factor**2 + 1 + int(unet.config.in_channels)
    unet.conv_in = InpaintingInput(unet.conv_in, channels).to(unet.device)
    return unet.conv_in.shown


def shown_channels(latents: Tensor, masks: Tensor) -> Tensor:
    """Return what the U-Net sees of masks, `(B, factor² + 1 + C_lat, h, w)`.

    Args:
        latents: `(B, C_lat, h, w)`, without noise; only those outside the masks are shown.
        masks: `(B, 1, H, W)` in {0, 1}, at the resolution of the pixels.
    """
    factor = masks.shape[-1] // latents.shape[-1]
    cells = F.max_pool2d(masks, factor)
    return torch.cat([2 * F.pixel_unshuffle(masks, factor) - 1, cells, latents * (1 - cells)], dim=1)
