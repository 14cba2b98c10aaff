"""Trains the embedded base's autoencoder: AutoencoderKL, factor 4, 4 latent channels, on procedural views.

Loss: L1 and squares, heavier on the defect, of pixels, of 8×8 means and of finite differences (against blur); plus L1
of the chroma and the square of its 4×4 means, because nearly half of all images are grey, and L1 alone would make
everything grey. A light KL term keeps the latents compact. Afterwards the latents' per-channel mean and deviation are
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

from model.kernels.group_norm import use_channels_last
from model.pretrain.data import Views, ViewShards, as_pixels
from model.pretrain.loop import LoopConfig, draws_of, run_loop
from model.pretrain.precision import computing_in
from model.runtime.matrix_units import faster_precision
from model.runtime.progress import Progress

SQUARES = 4.0
"""Weight of squared errors beside absolute ones, which alone leave rare contrasts too weak."""

REFRESH_EVERY = 50
"""Steps between two looks for newly rendered shards."""


@dataclass(frozen=True, slots=True)
class AutoencoderConfig:
    """Size of the network and of its batches.

    Attributes:
        widths: channels per level; two of them fewer than levels halve the picture.
        groups: groups of every group normalisation, a divisor of every width.
        colour_steps: number of first steps in which colour outweighs everything else, so that latents represent it.
        batch: views per step.
        seed: seed of the weights and of all draws.
    """

    widths: tuple[int, ...] = (24, 48, 96)
    groups: int = 8
    latent_channels: int = 4
    batch: int = 16
    kl_weight: float = 1e-4
    colour_steps: int = 400
    seed: int = 0


def build_autoencoder(config: AutoencoderConfig, sample_size: int) -> AutoencoderKL:
    """Make a new autoencoder with weights drawn from `config.seed`."""
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
        norm_num_groups=config.groups,
        mid_block_add_attention=False,
        sample_size=sample_size,
        scaling_factor=1.0,
    )


def train_autoencoder(
    vae: AutoencoderKL,
    shards: ViewShards,
    folder: Path,
    config: AutoencoderConfig,
    loop: LoopConfig,
    *,
    decoder_only: bool = False,
) -> Iterator[Progress]:
    """Train in place, resumably; unless `decoder_only`, the caller then calls `fold_latent_statistics`.

    Args:
        decoder_only: whether to train only the decoder, so that latents do not change.
    """
    use_channels_last(vae)
    vae.train()
    if decoder_only:
        vae.encoder.requires_grad_(False)
        vae.quant_conv.requires_grad_(False)
    device = next(vae.parameters()).device
    precision = faster_precision(device)

    def loss_of(step: int) -> Tensor:
        generator, rng = draws_of(config.seed, step, device)
        if step % REFRESH_EVERY == 0:
            shards.refresh()
        views, chosen = shards.draw(config.batch, generator, rng)
        pixels, masks = draw_pictures(views, chosen, generator, rng)
        with computing_in(precision, device):
            posterior = vae.encode(pixels).latent_dist
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        noise = torch.randn(mean.shape, generator=generator, device=device)
        with computing_in(precision, device):
            output = vae.decode(mean + noise * (0.5 * logvar).exp()).sample
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        colour = 50.0 if step < config.colour_steps and not decoder_only else 5.0
        return reconstruction_loss(output.float(), pixels, masks, colour) + config.kl_weight * kl

    yield from run_loop({"vae": vae}, loss_of, folder, loop, "autoencoder")
    vae.eval()


def draw_pictures(
    views: Views, chosen: Tensor, generator: torch.Generator, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Draw what the autoencoder reconstructs of the chosen views, rotated and mirrored as a batch.

    Half are defective images, a quarter parts, a fifth faultless images, the rest pictures of masks.

    Returns:
        Pixels `(B, 3, P, P)` in [-1, 1] and masks `(B, 1, P, P)` float in {0, 1}.
    """
    kind = torch.rand(len(chosen), generator=generator, device=generator.device).view(-1, 1, 1, 1)
    pictures = torch.where(kind < 0.5, views.images[chosen], views.normals[chosen])
    pictures = torch.where((kind >= 0.5) & (kind < 0.75), views.parts(chosen), pictures)
    pictures = torch.where(kind >= 0.95, views.mask_pictures(chosen), pictures)
    pixels, masks = as_pixels(pictures), views.masks[chosen][:, None].float()
    turns, mirrored = int(rng.integers(4)), bool(rng.integers(2))
    pixels, masks = (torch.rot90(each, turns, (2, 3)) for each in (pixels, masks))
    if mirrored:
        pixels, masks = pixels.flip(3), masks.flip(3)
    return pixels.contiguous(memory_format=torch.channels_last), masks


def reconstruction_loss(output: Tensor, pixels: Tensor, masks: Tensor, colour_weight: float) -> Tensor:
    """Compute the loss in the module's docstring; all tensors `(B, C, H, W)`, pixels in [-1, 1]."""
    difference = output - pixels
    weight = 1 + 3 * masks
    plain = ((difference.abs() + SQUARES * difference.square()) * weight).mean()
    low = F.avg_pool2d(difference, 8).abs().mean()
    chroma = difference[:, 1:] - difference[:, :1]
    colour = 0.5 * chroma.abs().mean() + colour_weight * F.avg_pool2d(chroma, 4).square().mean()
    edges = (difference[..., 1:] - difference[..., :-1]).abs().mean() + (
        difference[..., 1:, :] - difference[..., :-1, :]
    ).abs().mean()
    return plain + low + colour + 0.5 * edges


@torch.no_grad()
def fold_latent_statistics(vae: AutoencoderKL, images: Tensor) -> None:
    """Make the latents zero-mean and unit-deviation per channel by changing only the two 1×1 convolutions.

    Args:
        images: `(N, P, P, 3)` uint8, the images to take statistics of.
    """
    channels = vae.config.latent_channels
    means = [vae.encode(as_pixels(chunk).to(vae.device)).latent_dist.mean for chunk in images.split(32)]
    latents = torch.cat(means).transpose(0, 1).flatten(1)
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
