"""The training objective: two branches, one shared timestep, independent noise (DualAnoDiff, eq. 4 and 6).

    z_t = √ᾱ_t z_0 + √(1 − ᾱ_t) ε,        z'_t = √ᾱ_t z'_0 + √(1 − ᾱ_t) ε'
    ε_θ, ε'_θ = denoiser(z_t, z'_t, t, prompts)
    L = E‖ε − ε_θ‖² + E‖ε' − ε'_θ‖²                        z of the image, z' of the anomaly part

The target is ε where the base predicts noise, and v where it predicts v, see `model.diffusion.noise_schedule`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from model.diffusion.noise_schedule import draw_timesteps
from model.dualanodiff.latent_dataset import LatentDataset
from model.dualanodiff.model import DualAnoDiffModel
from model.dualanodiff.unet import ForwardOptions
from model.runtime.seeding import step_generator
from model.runtime.transfer import on_device

HELD_OUT_SEED = 999_983
"""Of the noise and timesteps at which the held-out pair is measured; no step of a training draws from it."""


def training_loss(
    model: DualAnoDiffModel, dataset: LatentDataset, generator: torch.Generator, text: Tensor | None = None
) -> Tensor:
    """Compute the objective on one random batch of crops; all draws come from `generator`, on the CPU.

    Args:
        text: `(2, P, L, D)` embeddings of the prompts; None to compute them, as where the text encoder is trained.
    """
    config = model.config
    crops = dataset.draw(config.batch, generator)
    timesteps = draw_timesteps(config.batch, model.schedule.steps, generator)
    batch = dataset.chosen(on_device(crops, model.device))
    noise = _drawn_noise(batch, generator)
    return _loss(model, batch, on_device(timesteps, model.device), noise, text)


def held_out_loss(model: DualAnoDiffModel, dataset: LatentDataset, text: Tensor | None = None) -> Tensor:
    """Compute the objective on all crops of a dataset, at the same timesteps and noise in every call and batch size."""
    count = dataset.latents.shape[1]
    generator = step_generator(HELD_OUT_SEED, 0)
    timesteps = on_device(draw_timesteps(count, model.schedule.steps, generator), model.device)
    noise = _drawn_noise(dataset, generator)
    total = torch.zeros((), device=model.device)
    for crops in torch.arange(count, device=model.device).split(model.config.batch):
        total += _loss(model, dataset.chosen(crops), timesteps[crops], noise.chosen(crops), text) * len(crops)
    return total / count


def _drawn_noise(dataset: LatentDataset, generator: torch.Generator) -> LatentDataset:
    """Draw noise in place of all latents of a dataset: ε, ε' and the background's."""

    def draw(like: Tensor) -> Tensor:
        return on_device(torch.randn(like.shape, generator=generator), like.device)

    latents = draw(dataset.latents)
    return replace(
        dataset, latents=latents, backgrounds=None if dataset.backgrounds is None else draw(dataset.backgrounds)
    )


def _loss(
    model: DualAnoDiffModel, batch: LatentDataset, timesteps: Tensor, noise: LatentDataset, text: Tensor | None
) -> Tensor:
    """Compute the objective on a batch of crops; timestep t of a crop is that of both its branches."""
    schedule = model.schedule
    text = text if text is not None else embedded_prompts(model)
    prompts = text[:, :1].expand(-1, len(timesteps), -1, -1) if batch.prompts is None else text[:, batch.prompts]
    noisy = schedule.add_noise(batch.latents, noise.latents, timesteps)
    with _precision(model):
        run = ForwardOptions()
        if batch.backgrounds is not None and noise.backgrounds is not None:
            noisy_background = schedule.add_noise(batch.backgrounds, noise.backgrounds, timesteps)
            run.background = model.denoiser.background_features(noisy_background, timesteps, prompts[0])
        predicted = model.denoiser(noisy, timesteps, prompts, run)
    target = schedule.target(batch.latents, noise.latents, timesteps)
    return pair_loss(predicted, target, batch.masks, model.config.defect_weight)


def embedded_prompts(model: DualAnoDiffModel) -> Tensor:
    """Embed the prompts, `(2, P, L, D)`, in the training's precision."""
    with _precision(model):
        return model.training_embeddings()


def _precision(model: DualAnoDiffModel) -> AbstractContextManager[object]:
    bf16 = model.config.precision == "bf16"
    return torch.autocast(model.device.type, torch.bfloat16) if bf16 else nullcontext()


def pair_loss(prediction: Tensor, target: Tensor, masks: Tensor | None = None, defect_weight: float = 0.0) -> Tensor:
    """Compute ‖ε − ε_θ‖² + ‖ε' − ε'_θ‖²: the sum of the two branches' mean squared errors.

    Args:
        prediction: `(2, B, C, h, w)`.
        target: the same shape.
        masks: `(B, 1, h, w)` in [0, 1], the defect at latent resolution; needed only with `defect_weight`.
        defect_weight: 0 is the paper's loss. Otherwise the error inside the mask, averaged over the mask's own area,
            is added with this weight, so that small defects are not drowned by their surroundings (AnomalyDiffusion
            weighs by the mask too).

    Returns:
        Scalar.
    """
    error = F.mse_loss(prediction.float(), target.float(), reduction="none").mean(2)
    loss = error.mean((1, 2, 3)).sum()
    if defect_weight and masks is not None:
        inside = masks[:, 0]
        per_pair = (error * inside).sum((2, 3)) / inside.sum((1, 2)).clamp_min(1.0)
        loss = loss + defect_weight * per_pair.mean(1).sum()
    return loss
