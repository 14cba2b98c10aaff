"""The embedded base's two mask networks: one finds the defect in an anomaly part, the other the object in an image.

Both are small U²-Nets trained on procedural samples with the paper's deep supervision. Parts go through the base's
autoencoder on their way, with some noise added to their latents, because that is how generated parts come.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor

from model.checkpoint import step_generator
from model.masks import deep_loss, degrade, iou, move
from model.pixels import to_pixels
from model.pretrain.data import ProceduralSet
from model.pretrain.loop import LoopConfig, run_loop
from model.progress import Progress
from model.u2net import GRADED, PLAIN, U2Net, Width, normalise, saliency


class Subject(StrEnum):
    """What is segmented: the defect on its anomaly part, or the object (`M_f`) in the whole image."""

    PART = "part"
    OBJECT = "object"


@dataclass(frozen=True, slots=True)
class SegmentationConfig:
    """Size of the network and of its batches.

    Attributes:
        subject: what it learns to find.
        widths: of its stages.
        batch: pictures per step.
        held_out: samples at the end of the set that are kept for measuring.
        latent_noise: largest deviation of the noise put on a part's latents, for latents of unit deviation.
        seed: of the weights and of every draw.
    """

    subject: Subject
    widths: tuple[Width, ...] = GRADED
    batch: int = 16
    held_out: int = 128
    latent_noise: float = 0.25
    seed: int = 0


def build_segmentation(config: SegmentationConfig) -> U2Net:
    """A new network with weights drawn from `config.seed`, which takes pixels at their own size."""
    torch.manual_seed(config.seed)
    return U2Net(config.widths, PLAIN)


def train_segmentation(
    net: U2Net,
    samples: ProceduralSet,
    folder: Path,
    config: SegmentationConfig,
    loop: LoopConfig,
    vae: AutoencoderKL | None = None,
) -> Iterator[Progress]:
    """Train in place, resumably; at every checkpoint the progress notes the IoU on the held-out samples.

    Args:
        net: from `build_segmentation`. It ends in evaluation mode, with averaged weights.
        folder: where checkpoints live.
        vae: the base's autoencoder, on the network's device. Half of each batch of parts goes through it; without it,
            blur and noise alone stand for it.
    """
    device = next(net.parameters()).device
    net.train()

    def loss_of(step: int) -> Tensor:
        generator = step_generator(config.seed, step)
        chosen = torch.randint(len(samples) - config.held_out, (config.batch,), generator=generator).tolist()
        pixels, masks = draw(samples, chosen, config, generator, vae)
        inputs = normalise(pixels, net.preprocessing).to(device, memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16):
            logits = net(inputs)
        return deep_loss(logits, masks.to(device))

    stage = f"{config.subject} masks"
    for progress in run_loop({"mask_network": net}, loss_of, folder, loop, stage):
        if progress.completed % loop.checkpoint_every == 0 and progress.completed < loop.steps:
            yield replace(progress, note=_note(net, samples, config, vae))
            net.train()
        else:
            yield progress
    yield Progress(stage, loop.steps, loop.steps, "steps", note=_note(net, samples, config, vae))


def _note(net: U2Net, samples: ProceduralSet, config: SegmentationConfig, vae: AutoencoderKL | None) -> str:
    scores = held_out_ious(net, samples, config, vae)
    return f"IoU on {len(scores)} held-out samples: mean {scores.mean():.3f}, median {np.median(scores):.3f}"


@torch.no_grad()
def draw(
    samples: ProceduralSet,
    chosen: Sequence[int],
    config: SegmentationConfig,
    generator: torch.Generator,
    vae: AutoencoderKL | None,
) -> tuple[Tensor, Tensor]:
    """A batch as the network should meet it: pictures moved and degraded, and what is to be found in them.

    Args:
        chosen: indices of the samples.

    Returns:
        Pixels `(B, 3, S, S)` in [-1, 1] and masks `(B, 1, S, S)` float in {0, 1}, on the CPU.
    """
    if config.subject is Subject.PART:
        pixels, masks = _parts(samples, chosen)
        pixels, masks = move(pixels, masks, generator, outside="zeros")
        half = len(chosen) // 2
        if vae is not None:
            pixels[:half] = autoencode(vae, pixels[:half], config.latent_noise, generator)
        return degrade(pixels, generator), masks
    defective = torch.rand(len(chosen), generator=generator) < 0.5
    images = [(samples.images if flag else samples.normals)[i] for i, flag in zip(chosen, defective, strict=True)]
    masks = _stacked(samples.object_masks, chosen)
    pixels, masks = move(to_pixels(images), masks, generator, outside="reflection")
    return degrade(pixels, generator), masks


def autoencode(vae: AutoencoderKL, pixels: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    """Encode, disturb the latents and decode.

    Args:
        pixels: `(B, 3, H, W)` float in [-1, 1], on the CPU.
        noise: each picture's noise has a deviation drawn from 0 to this, for latents of unit deviation.

    Returns:
        `(B, 3, H, W)` in [-1, 1], on the CPU.
    """
    device = next(vae.parameters()).device
    with torch.autocast(device.type, torch.bfloat16):
        latents = vae.encode(pixels.to(device)).latent_dist.mean
        strength = noise * torch.rand((len(pixels), 1, 1, 1), generator=generator) / vae.config.scaling_factor
        disturbance = strength * torch.randn(latents.shape, generator=generator)
        output: Tensor = vae.decode(latents + disturbance.to(device)).sample
    return output.float().clamp(-1, 1).cpu()


@torch.no_grad()
def held_out_ious(
    net: U2Net, samples: ProceduralSet, config: SegmentationConfig, vae: AutoencoderKL | None
) -> NDArray[np.float64]:
    """IoU with the truth on every held-out sample, `(held_out,)`; leaves the network in evaluation mode.

    Defective images as they are, parts through the autoencoder (without one: degraded), by draws that never change.
    """
    net.eval()
    device = next(net.parameters()).device
    scores = []
    for begin in range(len(samples) - config.held_out, len(samples), config.batch):
        chosen = range(begin, min(begin + config.batch, len(samples)))
        generator = step_generator(config.seed, begin)
        if config.subject is Subject.PART:
            pixels, masks = _parts(samples, chosen)
            pixels = degrade(pixels, generator) if vae is None else autoencode(vae, pixels, 0.0, generator)
        else:
            pixels, masks = (
                to_pixels(samples.images[chosen.start : chosen.stop]),
                _stacked(samples.object_masks, chosen),
            )
        found = saliency(net, pixels.to(device)).cpu() > 0.5
        scores += [iou(one[0], other[0]) for one, other in zip(found.numpy(), masks.numpy() > 0.5, strict=True)]
    return np.array(scores)


def _parts(samples: ProceduralSet, chosen: Sequence[int]) -> tuple[Tensor, Tensor]:
    return to_pixels([samples.part(index) for index in chosen]), _stacked(samples.masks, chosen)


def _stacked(masks: NDArray[np.bool_], chosen: Sequence[int]) -> Tensor:
    return torch.from_numpy(masks[np.asarray(chosen)]).float()[:, None]
