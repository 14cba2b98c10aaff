"""Denoises a batch of pairs: both branches, with and without prompts, in the same passes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from model.diffusion.attention_maps import average_maps
from model.diffusion.prompts import own_tokens
from model.diffusion.schedulers import make_scheduler, start_after
from model.dualanodiff.model import DualAnoDiffModel
from model.dualanodiff.sampling.anchoring import Anchoring, blend, keep_to_course
from model.dualanodiff.sampling.given_parts import Pull, pull_towards
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
    at_once: int,
    anchoring: Anchoring | None = None,
    background: Features | None = None,
) -> Generator[Progress, None, tuple[Tensor, np.ndarray | None]]:
    """Denoise to latents of image and part; also returns the averaged attention maps if the masks need them.

    Args:
        predict: runs the model's denoiser.
        text: `(2, G, L, D)` prompt embeddings; G is 2 with guidance, the empty prompt's last.
        noise: `(2, B, C, h, w)`.
        generators: one per pair, for schedulers that add noise.
        at_once: most windows in one pass.
        anchoring: in anchored sampling; otherwise None.
        background: BCM's features, for an adapter with BCM.
    """
    scheduler = make_scheduler(config.scheduler, model.base.scheduler)
    scheduler.set_timesteps(config.steps, device=model.device)
    timesteps, count = scheduler.timesteps, noise.shape[1]
    begin, latents = _start(scheduler, config, noise, anchoring)
    tiling = anchoring.tiling if anchoring is not None else None
    wants_maps = config.mask_method is MaskMethod.ATTENTION
    collected: list[Tensor] = []
    meter = Meter("denoise", len(timesteps), "steps", resumed=begin)
    stepper = _Stepper(scheduler, generators, anchoring.sides if anchoring is not None else ())
    for number, timestep in enumerate(timesteps[begin:], start=begin):
        scaled = stepper.scaled(latents, timestep)
        steps = timestep.long()
        features = background(number, steps) if background is not None else None
        windows, most = (scaled, count) if tiling is None else (tiling.cut(scaled), at_once)
        chunks = windows.split(most, dim=1)
        pulls: Sequence[Pull | None] = [None] * len(chunks)
        if anchoring is not None and anchoring.given is not None:
            scales = config.part_guidance, config.guidance_scale
            pulls = pull_towards(anchoring.given, tiling, anchoring.grey, model.schedule, steps, scales).split(most)
        passes = [
            _predicted(predict, config, chunk, steps, text, features=features, wants_maps=wants_maps, pull=pull)
            for chunk, pull in zip(chunks, pulls, strict=True)
        ]
        prediction = torch.cat([each.prediction for each in passes], dim=1)
        maps = torch.cat([each.maps for each in passes if each.maps is not None]) if wants_maps else None
        if tiling is not None:
            prediction = tiling.join(prediction)
            maps = None if maps is None else tiling.join(maps.movedim(-1, 1)).movedim(1, -1)
        blends = number >= config.blend_from * len(timesteps)
        if anchoring is not None and (blends or tiling is not None or anchoring.given is not None):
            clean = model.schedule.predict_clean(scaled, prediction, steps.expand(count))
            blended = blend(clean, anchoring) if blends else keep_to_course(clean, anchoring)
            kept = model.schedule.prediction_of(scaled, blended, steps.expand(count))
            # Pairs of a single window are the same beside canvases as without.
            rows = torch.ones_like(anchoring.held) if blends else anchoring.held
            prediction = torch.where(rows[:, None, None, None], kept, prediction)
        if maps is not None:
            collected.append(maps)
        latents = stepper.step(prediction, timestep, latents)
        yield meter.report(number + 1)
    if anchoring is not None:
        latents = blend(latents, anchoring)
    averaged = _defect_tokens(model, torch.stack(collected).mean(0)) if collected else None
    return latents, averaged


@dataclass(frozen=True, slots=True)
class _Pass:
    """Prediction `(2, N, C, h, w)` of a pass, and its attention maps `(N, h, w, L)` if they are wanted."""

    prediction: Tensor
    maps: Tensor | None


def _predicted(
    predict: Predict,
    config: SamplingConfig,
    latents: Tensor,
    timestep: Tensor,
    text: Tensor,
    *,
    features: dict[str, Tensor] | None,
    wants_maps: bool,
    pull: Pull | None,
) -> _Pass:
    """Predict windows `(2, N, C, h, w)`, with guidance if `text` has the empty prompt.

    Args:
        pull: how images are guided towards given parts; None without any.
    """
    count, guided = latents.shape[1], text.shape[1] == 2
    maps: list[Tensor] | None = [] if wants_maps else None
    both = latents.repeat(1, 2, 1, 1, 1) if guided else latents
    if pull is not None:
        both[1, count:] += pull.hiding
    run = ForwardOptions(attention_maps=maps, background=features)
    prediction = predict(both, timestep, text.repeat_interleave(count, dim=1), run).float()
    if pull is not None:
        image, part = prediction.split(1)
        prediction = torch.cat([guide(image, pull.scales), guide(part, config.guidance_scale)])
    elif guided:
        prediction = guide(prediction, config.guidance_scale)
    return _Pass(prediction, None if maps is None else average_maps(maps, count, latents.shape[-2:]))


def _start(scheduler: Any, config: SamplingConfig, noise: Tensor, anchoring: Anchoring | None) -> tuple[int, Tensor]:
    """Return the number of the first step, and the latents before it."""
    strength = config.sketch_strength or config.strength
    if anchoring is None or strength == 1:
        return 0, noise * scheduler.init_noise_sigma
    begin, timestep = start_after(scheduler, strength)
    count = noise.shape[1]
    latents = scheduler.add_noise(anchoring.start.flatten(0, 1), noise.flatten(0, 1), timestep.expand(2 * count))
    return begin, latents.unflatten(0, (2, count))


class _Stepper:
    """Takes the steps of a scheduler, all pairs together.

    On canvases, which are padded to the largest, each pair takes its own where a scheduler adds noise: it draws that
    for all that it is given, which depends on the largest canvas.

    Args:
        scheduler: ready for its first step.
        generators: one per pair.
        sides: of the canvases before they were padded, latent cells; empty where every canvas is one window.
    """

    def __init__(self, scheduler: Any, generators: Sequence[torch.Generator], sides: Sequence[int]) -> None:
        self._generators = generators if "generator" in inspect.signature(scheduler.step).parameters else ()
        self._sides = sides if self._generators else ()
        self._schedulers = [deepcopy(scheduler) for _ in self._sides] or [scheduler]

    def scaled(self, latents: Tensor, timestep: Tensor) -> Tensor:
        """Scale latents `(2, B, C, h, w)` as the model takes them."""
        # Every scheduler has to see it before its first step.
        scaled = [scheduler.scale_model_input(latents, timestep) for scheduler in self._schedulers]
        return scaled[0]

    def step(self, prediction: Tensor, timestep: Tensor, latents: Tensor) -> Tensor:
        """Return the latents `(2, B, C, h, w)` after a step."""
        if not self._sides:
            extra = {"generator": [*self._generators, *self._generators]} if self._generators else {}
            stepped = self._schedulers[0].step(prediction.flatten(0, 1), timestep, latents.flatten(0, 1), **extra)
            return cast("Tensor", stepped.prev_sample.unflatten(0, latents.shape[:2]))
        after = torch.zeros_like(latents)
        for row, (scheduler, generator, side) in enumerate(
            zip(self._schedulers, self._generators, self._sides, strict=True)
        ):
            own = np.s_[:, row, :, :side, :side]
            after[own] = scheduler.step(prediction[own], timestep, latents[own], generator=[generator] * 2).prev_sample
        return after


def guide(both: Tensor, scale: float | Tensor) -> Tensor:
    """Apply classifier-free guidance to conditional and unconditional predictions, `(2, 2 B, …)` → `(2, B, …)`."""
    conditional, unconditional = both.chunk(2, dim=1)
    return unconditional + scale * (conditional - unconditional)


def _defect_tokens(model: DualAnoDiffModel, maps: Tensor) -> np.ndarray:
    """Average `(B, h, w, L)` maps over the anomaly prompt's own tokens → `(B, h, w)`."""
    return maps[..., own_tokens(model.tokenizer, model.tokens[1, 0])].mean(-1).cpu().numpy()
