"""Trains the embedded base's mask networks: one finds the defect in an anomaly part, the other the object in an image.

Both are small U²-Nets trained on procedural samples with the paper's deep supervision. Parts pass through the base's
autoencoder, with some noise added to their latents, to look like generated parts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor

from model.masks.extraction import iou
from model.masks.finetune import deep_loss, degrade, move
from model.masks.u2net import GRADED, PLAIN, U2Net, Width, normalise, saliency
from model.pretrain.data import Views, ViewShards, as_pixels
from model.pretrain.loop import LoopConfig, draws_of, run_loop
from model.pretrain.precision import computing_in
from model.runtime.matrix_units import faster_precision
from model.runtime.progress import Progress


class Subject(StrEnum):
    """What to segment: the defect on its anomaly part, or the object (`M_f`) in the whole image."""

    PART = "part"
    OBJECT = "object"


@dataclass(frozen=True, slots=True)
class SegmentationConfig:
    """Size of the network and of its batches.

    Attributes:
        subject: what it learns to find.
        widths: widths of its stages.
        batch: images per step.
        latent_noise: largest standard deviation of noise added to latents of unit deviation.
        seed: seed of the weights and of all draws.
    """

    subject: Subject
    widths: tuple[Width, ...] = GRADED
    batch: int = 16
    latent_noise: float = 0.25
    seed: int = 0


def build_segmentation(config: SegmentationConfig) -> U2Net:
    """Make a new network for pixels at their own size, with weights drawn from `config.seed`."""
    torch.manual_seed(config.seed)
    return U2Net(config.widths, PLAIN)


def train_segmentation(
    net: U2Net,
    shards: ViewShards,
    held_out: Views,
    folder: Path,
    config: SegmentationConfig,
    loop: LoopConfig,
    vae: AutoencoderKL | None = None,
) -> Iterator[Progress]:
    """Train in place, resumably; the last progress report notes the IoU on held-out views.

    Args:
        net: from `build_segmentation`. In the end it is in evaluation mode, with averaged weights.
        held_out: views of scenes outside of the shards.
        folder: folder of the checkpoints.
        vae: the base's autoencoder, on the network's device. Half of each batch of parts passes through it; without it,
            blur and noise imitate it.
    """
    device = next(net.parameters()).device
    precision = faster_precision(device)
    net.train()

    def loss_of(step: int) -> Tensor:
        generator, rng = draws_of(config.seed, step, device)
        pixels, masks = draw(*shards.draw(config.batch, generator, rng), config, generator, vae)
        inputs = normalise(pixels, net.preprocessing).contiguous(memory_format=torch.channels_last)
        with computing_in(precision, device):
            logits = net(inputs)
        return deep_loss(logits, masks)

    stage = f"{config.subject} masks"
    last = Progress(stage, 1, 1, "steps")
    for last in run_loop({"mask_network": net}, loss_of, folder, loop, stage):
        yield last
    scores = held_out_ious(net, held_out, config, vae)
    note = f"IoU on {len(scores)} held-out views: mean {scores.mean():.3f}, median {np.median(scores):.3f}"
    yield replace(last, completed=last.total, eta=0.0, note=note)


@torch.no_grad()
def draw(
    views: Views,
    chosen: Tensor,
    config: SegmentationConfig,
    generator: torch.Generator,
    vae: AutoencoderKL | None,
) -> tuple[Tensor, Tensor]:
    """Draw a batch: images moved and degraded, and the masks to find in them.

    Args:
        chosen: `(B,)` indices of the views.
        generator: on the views' device.

    Returns:
        Pixels `(B, 3, P, P)` in [-1, 1] and masks `(B, 1, P, P)` float in {0, 1}, on the views' device.
    """
    if config.subject is Subject.PART:
        pixels, masks = as_pixels(views.parts(chosen)), views.masks[chosen][:, None].float()
        pixels, masks = move(pixels, masks, generator, outside="zeros")
        half = len(chosen) // 2
        if vae is not None:
            pixels[:half] = autoencode(vae, pixels[:half], config.latent_noise, generator)
        return degrade(pixels, generator), masks
    defective = torch.rand((len(chosen), 1, 1, 1), generator=generator, device=generator.device) < 0.5
    pixels = as_pixels(torch.where(defective, views.images[chosen], views.normals[chosen]))
    masks = views.object_masks[chosen][:, None].float()
    pixels, masks = move(pixels, masks, generator, outside="reflection")
    return degrade(pixels, generator), masks


def autoencode(vae: AutoencoderKL, pixels: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    """Encode, disturb the latents and decode.

    Args:
        pixels: `(B, 3, H, W)` float in [-1, 1], on the autoencoder's and the generator's device.
        noise: largest standard deviation of an image's noise, for latents of unit deviation; drawn from 0 to this.

    Returns:
        `(B, 3, H, W)` in [-1, 1].
    """
    device = vae.device
    precision = faster_precision(device)
    with computing_in(precision, device):
        latents = vae.encode(pixels).latent_dist.mean
        strength = torch.rand((len(pixels), 1, 1, 1), generator=generator, device=device)
        disturbance = torch.randn(latents.shape, generator=generator, device=device)
        latents = latents + noise * strength / vae.config.scaling_factor * disturbance
        output: Tensor = vae.decode(latents).sample
    return output.float().clamp(-1, 1)


@torch.no_grad()
def held_out_ious(
    net: U2Net, views: Views, config: SegmentationConfig, vae: AutoencoderKL | None
) -> NDArray[np.float64]:
    """Measure the IoU with the true mask on every view, `(N,)`; leaves the network in evaluation mode.

    Defective images are unchanged, parts are autoencoded (degraded without an autoencoder), always with the same draws.
    """
    net.eval()
    device = next(net.parameters()).device
    scores = []
    for chosen in torch.arange(len(views), device=device).split(config.batch):
        generator, _ = draws_of(config.seed, int(chosen[0]), device)
        if config.subject is Subject.PART:
            pixels, masks = as_pixels(views.parts(chosen)), views.masks[chosen]
            pixels = degrade(pixels, generator) if vae is None else autoencode(vae, pixels, 0.0, generator)
        else:
            pixels, masks = as_pixels(views.images[chosen]), views.object_masks[chosen]
        found = saliency(net, pixels)[:, 0].cpu() > 0.5
        scores += [iou(one, other) for one, other in zip(found.numpy(), masks.cpu().numpy(), strict=True)]
    return np.array(scores)
