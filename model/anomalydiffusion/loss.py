"""The training objective: the diffusion loss inside the mask alone (AnomalyDiffusion, eq. 3).

    L = E ‖m ⊙ (ε − ε_θ(z_t, t, [e_a ; e_s]))‖² / ‖m‖₁

The paper's is averaged over all cells, so that small defects get small gradients; here each is divided by its own area.
The target is ε where the base predicts noise, and v where it predicts v, see `model.diffusion.noise_schedule`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from model.anomalydiffusion.inpainting import shown_channels
from model.anomalydiffusion.latent_dataset import LatentDataset
from model.anomalydiffusion.model import AnomalyDiffusionModel
from model.diffusion.noise_schedule import draw_timesteps
from model.runtime.seeding import step_generator
from model.runtime.transfer import on_device

HELD_OUT_SEED = 999_979
"""Of the noise and timesteps at which the held-out pair is measured; no step of a training draws from it."""


def training_loss(model: AnomalyDiffusionModel, dataset: LatentDataset, generator: torch.Generator) -> Tensor:
    """Compute the objective on one random batch of crops; all draws come from `generator`, on the CPU."""
    count = model.config.batch
    crops = dataset.draw(count, generator)
    timesteps = draw_timesteps(count, model.schedule.steps, generator)
    batch = dataset.chosen(on_device(crops, model.device))
    noise = torch.randn(batch.latents.shape, generator=generator)
    return _loss(model, batch, on_device(timesteps, model.device), on_device(noise, model.device))


def held_out_loss(model: AnomalyDiffusionModel, dataset: LatentDataset) -> Tensor:
    """Compute the objective on all crops of a dataset, at the same timesteps and noise in every call."""
    count = len(dataset.types)
    generator = step_generator(HELD_OUT_SEED, 0)
    timesteps = on_device(draw_timesteps(count, model.schedule.steps, generator), model.device)
    noise = on_device(torch.randn(dataset.latents.shape, generator=generator), model.device)
    total = torch.zeros((), device=model.device)
    for crops in torch.arange(count, device=model.device).split(model.config.batch):
        total += _loss(model, dataset.chosen(crops), timesteps[crops], noise[crops]) * len(crops)
    return total / count


def _loss(model: AnomalyDiffusionModel, batch: LatentDataset, timesteps: Tensor, noise: Tensor) -> Tensor:
    noisy = model.schedule.add_noise(batch.latents, noise, timesteps)
    with _precision(model):
        text = model.text(batch.types, batch.masks)
        if model.shown is not None:
            noisy = torch.cat([noisy, shown_channels(batch.latents, batch.masks)], dim=1)
        predicted = model.unet(noisy, timesteps, text).sample
    target = model.schedule.target(batch.latents, noise, timesteps)
    return masked_loss(predicted, target, batch.cells(model.base.factor))


def _precision(model: AnomalyDiffusionModel) -> AbstractContextManager[object]:
    bf16 = model.config.precision == "bf16"
    return torch.autocast(model.device.type, torch.bfloat16) if bf16 else nullcontext()


def masked_loss(prediction: Tensor, target: Tensor, cells: Tensor) -> Tensor:
    """Average the squared error over each mask's own area, then over the batch.

    Args:
        prediction, target: `(B, C, h, w)`.
        cells: `(B, 1, h, w)` in [0, 1].
    """
    error = (prediction.float() - target.float()).square().mean(1) * cells[:, 0]
    return (error.sum((1, 2)) / cells.sum((1, 2, 3)).clamp_min(1)).mean()
