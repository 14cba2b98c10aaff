"""Denoises a batch of pairs: both branches, with and without prompts, in the same passes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.diffusion.attention_maps import average_maps
from model.diffusion.prompts import own_tokens
from model.diffusion.schedulers import make_scheduler
from model.dualanodiff.model import DualAnoDiffModel
from model.dualanodiff.sampling.anchoring import Anchoring, blend
from model.dualanodiff.unet import ForwardOptions
from model.runtime.progress import Meter, Progress
from service.core.options.common import MaskMethod
from service.core.options.dualanodiff import SamplingConfig

Predict = Callable[[Tensor, Tensor, Tensor, ForwardOptions], Tensor]
"""A denoiser: latents `(2, B, C, h, w)`, one timestep, prompt embeddings `(2, B, L, D)` → prediction."""

Features = Callable[[int, Tensor], dict[str, Tensor]]
"""Step number and timestep → attention name → φ(z_b) of BCM, one row for all rows of the global branch or one each."""


def denoise(
    model: DualAnoDiffModel,
    predict: Predict,
    config: SamplingConfig,
    text: Tensor,
    noise: Tensor,
    generators: Sequence[torch.Generator],
    *,
    anchoring: Anchoring | None = None,
    background: Features | None = None,
) -> Generator[Progress, None, tuple[Tensor, np.ndarray | None]]:
    """Denoise to latents of image and part; also returns the averaged attention maps if the masks need them.

    Args:
        predict: runs the model's denoiser.
        text: `(2, G, L, D)` prompt embeddings; G is 2 with guidance, the empty prompt's last.
        noise: `(2, B, C, h, w)`.
        generators: one per pair, for schedulers that add noise.
        anchoring: in anchored sampling; otherwise None.
        background: BCM's features, for an adapter with BCM.
    """
    scheduler = make_scheduler(config.scheduler, model.base.scheduler)
    scheduler.set_timesteps(config.steps, device=model.device)
    timesteps, count = scheduler.timesteps, noise.shape[1]
    begin, latents = _start(scheduler, config, noise, anchoring)
    guided = text.shape[1] == 2
    text = text.repeat_interleave(count, dim=1)
    collected: list[Tensor] = []
    meter = Meter("denoise", len(timesteps), "steps", resumed=begin)
    extra = _randomness(scheduler, generators)
    for number, timestep in enumerate(timesteps[begin:], start=begin):
        scaled = scheduler.scale_model_input(latents, timestep)
        steps = timestep.long()
        maps: list[Tensor] | None = [] if config.mask_method is MaskMethod.ATTENTION else None
        run = ForwardOptions(
            attention_maps=maps, background=background(number, steps) if background is not None else None
        )
        both = scaled.repeat(1, 2, 1, 1, 1) if guided else scaled
        prediction = predict(both, steps, text, run).float()
        if guided:
            prediction = guide(prediction, config.guidance_scale)
        if anchoring is not None and number >= config.blend_from * len(timesteps):
            clean = model.schedule.predict_clean(scaled, prediction, steps.expand(count))
            blended = blend(clean, anchoring)
            prediction = model.schedule.prediction_of(scaled, blended, steps.expand(count))
        if maps is not None:
            collected.append(average_maps(maps, count, noise.shape[-2:]))
        latents = scheduler.step(prediction.flatten(0, 1), timestep, latents.flatten(0, 1), **extra).prev_sample
        latents = latents.unflatten(0, (2, count))
        yield meter.report(number + 1)
    if anchoring is not None:
        latents = blend(latents, anchoring)
    averaged = _defect_tokens(model, torch.stack(collected).mean(0)) if collected else None
    return latents, averaged


def _start(scheduler: Any, config: SamplingConfig, noise: Tensor, anchoring: Anchoring | None) -> tuple[int, Tensor]:
    """Return the number of the first step, and the latents before it."""
    strength = config.sketch_strength or config.strength
    if anchoring is None or strength == 1:
        return 0, noise * scheduler.init_noise_sigma
    timesteps, count = scheduler.timesteps, noise.shape[1]
    begin = min(len(timesteps) - 1, round(len(timesteps) * (1 - strength)))
    begin -= begin % scheduler.order  # second-order schedulers list every step twice
    first = timesteps[begin : begin + 1].expand(2 * count)
    if hasattr(scheduler, "set_begin_index"):  # those without it use the timestep alone
        scheduler.set_begin_index(begin)
    latents = scheduler.add_noise(anchoring.start.flatten(0, 1), noise.flatten(0, 1), first)
    return begin, latents.unflatten(0, (2, count))


def _randomness(scheduler: Any, generators: Sequence[torch.Generator]) -> dict[str, Any]:
    takes_generator = "generator" in inspect.signature(scheduler.step).parameters
    return {"generator": [*generators, *generators]} if takes_generator else {}


def guide(both: Tensor, scale: float) -> Tensor:
    """Apply classifier-free guidance to conditional and unconditional predictions, `(2, 2 B, …)` → `(2, B, …)`."""
    conditional, unconditional = both.chunk(2, dim=1)
    return unconditional + scale * (conditional - unconditional)


def _defect_tokens(model: DualAnoDiffModel, maps: Tensor) -> np.ndarray:
    """Average `(B, h, w, L)` maps over the anomaly prompt's own tokens → `(B, h, w)`."""
    return maps[..., own_tokens(model.tokenizer, model.tokens[1, 0])].mean(-1).cpu().numpy()
