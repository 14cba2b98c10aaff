"""The embedded base's autoencoder: AutoencoderKL, factor 4, 4 latent channels, trained on crops of procedural samples.

Loss: L1, heavier on the defect, of pixels, of 8×8 means and of finite differences (against blur); plus L1 of the chroma
and the square of its 4×4 means, because where nearly half of all pictures are grey L1 alone is content with grey
everywhere. A light KL term keeps the latents compact. Afterwards the latents' per-channel mean and deviation are
folded into `quant_conv` and `post_quant_conv`, so the scaling factor is 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from model.checkpoint import step_generator
from model.group_norm import use_channels_last
from model.pixels import to_pixels
from model.pretrain.data import ProceduralSet
from model.pretrain.loop import LoopConfig, run_loop
from model.progress import Progress


@dataclass(frozen=True, slots=True)
class AutoencoderConfig:
    """Size of the network and of its batches.

    Attributes:
        widths: channels per level; two of them fewer than levels halve the picture.
        crop: side of the square training crops, pixels.
        colour_steps: first steps in which colour outweighs everything else, so that the latents make room for it.
        batch: crops per step.
        seed: of the weights and of every draw.
    """

    widths: tuple[int, ...] = (32, 64, 128)
    latent_channels: int = 4
    crop: int = 64
    batch: int = 8
    kl_weight: float = 1e-4
    colour_steps: int = 400
    seed: int = 0


def build_autoencoder(config: AutoencoderConfig, sample_size: int) -> AutoencoderKL:
    """A new autoencoder with weights drawn from `config.seed`."""
    torch.manual_seed(config.seed)
    levels = len(config.widths)
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=config.latent_channels,
        block_out_channels=config.widths,
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        norm_num_groups=16,
        mid_block_add_attention=False,
        sample_size=sample_size,
        scaling_factor=1.0,
    )


def train_autoencoder(
    vae: AutoencoderKL, samples: ProceduralSet, folder: Path, config: AutoencoderConfig, loop: LoopConfig
) -> Iterator[Progress]:
    """Train in place, resumably; the caller then calls `fold_latent_statistics`."""
    use_channels_last(vae)
    vae.train()
    device = next(vae.parameters()).device

    def loss_of(step: int) -> Tensor:
        generator = step_generator(config.seed, step)
        pixels, masks = draw_crops(samples, config.batch, config.crop, generator)
        pixels = pixels.to(device, memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16):
            posterior = vae.encode(pixels).latent_dist
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        noise = torch.randn(mean.shape, generator=generator).to(device)
        with torch.autocast(device.type, torch.bfloat16):
            output = vae.decode(mean + noise * (0.5 * logvar).exp()).sample
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        colour = 50.0 if step < config.colour_steps else 5.0
        return reconstruction_loss(output.float(), pixels, masks.to(device), colour) + config.kl_weight * kl

    yield from run_loop({"vae": vae}, loss_of, folder, loop, "autoencoder")
    vae.eval()


def draw_crops(samples: ProceduralSet, count: int, crop: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random crops: half defective images around their defect, a quarter parts, the rest anywhere in any image.

    Returns:
        Pixels `(B, 3, crop, crop)` in [-1, 1] and masks `(B, 1, crop, crop)` float in {0, 1}.
    """
    size = samples.images.shape[1]
    draws = torch.rand((count, 5), generator=generator).numpy()
    pictures, masks = [], []
    for which, kind, across, down, flip in draws:
        index = int(which * len(samples))
        mask = samples.masks[index]
        source = (
            samples.part(index)
            if 0.5 <= kind < 0.75
            else samples.images[index]
            if kind < 0.9
            else samples.normals[index]
        )
        if kind < 0.75:
            ys, xs = np.nonzero(mask)
            pick = int(across * len(ys))
            left, top = xs[pick] - int(down * crop), ys[pick] - int(flip * crop)
        else:
            left, top = int(across * (size - crop + 1)), int(down * (size - crop + 1))
        left, top = int(np.clip(left, 0, size - crop)), int(np.clip(top, 0, size - crop))
        step = -1 if flip * 7 % 1 < 0.5 else 1
        pictures.append(source[top : top + crop, left : left + crop][:, ::step])
        masks.append(mask[top : top + crop, left : left + crop][:, ::step])
    return to_pixels(pictures), torch.from_numpy(np.stack(masks)).float()[:, None]


def reconstruction_loss(output: Tensor, pixels: Tensor, masks: Tensor, colour_weight: float) -> Tensor:
    """The terms of the module's docstring; all tensors `(B, C, H, W)`, pixels in [-1, 1]."""
    difference = output - pixels
    weight = 1 + 3 * masks
    plain = (difference.abs() * weight).mean()
    low = F.avg_pool2d(difference, 8).abs().mean()
    chroma = difference[:, 1:] - difference[:, :1]
    colour = 0.5 * chroma.abs().mean() + colour_weight * F.avg_pool2d(chroma, 4).square().mean()
    edges = (difference[..., 1:] - difference[..., :-1]).abs().mean() + (
        difference[..., 1:, :] - difference[..., :-1, :]
    ).abs().mean()
    return plain + low + colour + 0.5 * edges


@torch.no_grad()
def fold_latent_statistics(vae: AutoencoderKL, samples: ProceduralSet, count: int = 1024) -> None:
    """Make the latents zero-mean and unit-deviation per channel by changing only the two 1×1 convolutions."""
    channels = vae.config.latent_channels
    device = next(vae.parameters()).device
    moments = []
    for begin in range(0, min(count, len(samples)), 32):
        pixels = to_pixels(samples.images[begin : begin + 32]).to(device)
        moments.append(vae.encode(pixels).latent_dist.mean.transpose(0, 1).flatten(1))
    latents = torch.cat(moments, dim=1)
    mean, deviation = latents.mean(1), latents.std(1)
    quant, post = vae.quant_conv, vae.post_quant_conv
    post.bias += post.weight[:, :, 0, 0] @ mean
    post.weight *= deviation.view(1, -1, 1, 1)
    quant.weight[:channels] /= deviation.view(-1, 1, 1, 1)
    quant.bias[:channels] = (quant.bias[:channels] - mean) / deviation
    quant.bias[channels:] -= 2 * deviation.log()


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, pixels: Tensor) -> Tensor:
    """Encode to the posterior's mean and decode, `(B, 3, H, W)` in [-1, 1] both ways."""
    device = next(vae.parameters()).device
    output: Tensor = vae.decode(vae.encode(pixels.to(device)).latent_dist.mean).sample
    return output.clamp(-1, 1).cpu()
