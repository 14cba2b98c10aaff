"""The objective on batches of encoded views, without a wait for the device."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor

from model.checkpoint import step_generator
from model.denoiser import BranchPass
from model.latents import LatentBank
from model.network import PairModel
from model.objective import draw_timesteps, pair_loss

HELD_OUT_SEED = 999_983
"""Of the noise and timesteps at which the held-out pair is measured; no step of a training draws from it."""


def training_loss(model: PairModel, bank: LatentBank, generator: torch.Generator, text: Tensor | None = None) -> Tensor:
    """The objective on one random batch of views; all draws come from `generator`, on the CPU.

    Args:
        text: `(2, P, L, D)` embeddings of the prompts; None to compute them, as where the text encoder is trained.
    """
    config = model.config
    chosen = bank.draw(config.batch, generator)
    timesteps = draw_timesteps(config.batch, model.schedule.steps, generator)
    batch = bank.chosen(_on_device(chosen, model.device))
    return _loss(model, batch, _on_device(timesteps, model.device), _drawn_noise(batch, generator), text)


def held_out_loss(model: PairModel, bank: LatentBank, text: Tensor | None = None) -> Tensor:
    """The objective on all views of a bank, at timesteps and noise that are the same at every call and batch size."""
    count = bank.latents.shape[1]
    generator = step_generator(HELD_OUT_SEED, 0)
    timesteps = _on_device(draw_timesteps(count, model.schedule.steps, generator), model.device)
    noise = _drawn_noise(bank, generator)
    total = torch.zeros((), device=model.device)
    for views in torch.arange(count, device=model.device).split(model.config.batch):
        total += _loss(model, bank.chosen(views), timesteps[views], noise.chosen(views), text) * len(views)
    return total / count


def _drawn_noise(bank: LatentBank, generator: torch.Generator) -> LatentBank:
    """Noise in place of all latents of a bank, drawn on the CPU."""

    def draw(like: Tensor) -> Tensor:
        return _on_device(torch.randn(like.shape, generator=generator), like.device)

    latents = draw(bank.latents)
    return replace(bank, latents=latents, backgrounds=None if bank.backgrounds is None else draw(bank.backgrounds))


def _loss(model: PairModel, batch: LatentBank, timesteps: Tensor, noise: LatentBank, text: Tensor | None) -> Tensor:
    """The objective on a batch of views."""
    config = model.config
    noisy = model.schedule.add_noise(batch.latents, noise.latents, timesteps)
    text = text if text is not None else embedded_prompts(model)
    prompts = text[:, :1].expand(-1, len(timesteps), -1, -1) if batch.prompts is None else text[:, batch.prompts]
    with _precision(model):
        run = BranchPass()
        if batch.backgrounds is not None and noise.backgrounds is not None:
            noisy_behind = model.schedule.add_noise(batch.backgrounds, noise.backgrounds, timesteps)
            run.background = model.denoiser.background_features(noisy_behind, timesteps, prompts[0])
        prediction = model.denoiser(noisy, timesteps, prompts, run)
    target = model.schedule.target(batch.latents, noise.latents, timesteps)
    return pair_loss(prediction, target, batch.masks, config.defect_weight)


def embedded_prompts(model: PairModel) -> Tensor:
    """`(2, P, L, D)` embeddings of the prompts, in the training's precision."""
    with _precision(model):
        return model.training_embeddings()


def _precision(model: PairModel) -> AbstractContextManager[object]:
    bf16 = model.config.precision == "bf16"
    return torch.autocast(model.device.type, torch.bfloat16) if bf16 else nullcontext()


def _on_device(drawn: Tensor, device: torch.device) -> Tensor:
    """What was drawn on the CPU, copied without waiting for the device."""
    return drawn.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else drawn


class LateNumber:
    """A number on its way from the device; whoever reads it later does not wait for what the device was given since.

    Args:
        value: a scalar on any device.
    """

    def __init__(self, value: Tensor) -> None:
        self._value = value
        self._arrived: torch.cuda.Event | None = None
        if value.device.type == "cuda":
            self._value = torch.empty((), dtype=value.dtype, pin_memory=True).copy_(value, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record()

    def read(self) -> float:
        """The number."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return float(self._value)
