"""Fills masks with defects: blended diffusion in overlapping windows.

Before every step, what lies outside the mask m is replaced by the noised normal, and so is what a step implies there:

    x_t ← m ⊙ x_t + (1 − m) ⊙ q(z_0, t),        x̂_0 ← z_0 + s m ⊙ (x̂_0 − z_0)

and once more after the last step, which the released code leaves out. The paper's s is 1. A small base draws defects
fainter than real ones; s > 1 pushes them away from the normal z_0 that they replace, as classifier-free guidance pushes
away from the unconditional prediction, but without a second pass. Where a defect is fainter than elsewhere in its mask,
s can be larger, so that it is not lost there.

A mask that is larger than the model's window is seen through several windows; their predictions are averaged where they
overlap, at every step (MultiDiffusion, Bar-Tal et al. 2023; see `model.diffusion.tiling`), so that one defect comes of
them.
"""

from __future__ import annotations

import inspect
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor

from model.anomalydiffusion.inpainting import shown_channels
from model.anomalydiffusion.reweighting import Reweighting, attention_weights, faint_gains
from model.data.pixels import to_pixels
from model.data.windows import Canvas
from model.diffusion.noise_schedule import NoiseSchedule
from model.diffusion.schedulers import make_scheduler, start_after
from model.diffusion.tiling import Tiling
from model.diffusion.vae import decode, encode
from model.kernels.batch_invariance import FIXED_BATCH, fixed_batches
from model.runtime.cuda_memory import BatchBudget
from model.runtime.progress import Meter, Progress
from model.runtime.seeding import FINER_NOISE, NOISE, draw_noise, steps_generator
from model.types import ImageArray
from service.core.options.anomalydiffusion import AnomalySamplingConfig


@dataclass(frozen=True, slots=True)
class Painter:
    """What the windows of a request are filled with.

    Attributes:
        unet: prepared for sampling, see `unet_for_sampling`.
        text_words: positions of the anomaly's words in the prompt.
        inpainting: whether the U-Net sees masks.
        empty: `(1, L, D)` the empty prompt, with guidance; otherwise None.
        budget: how many windows fit in memory together; learnt while filling.
        factor: pixels per latent cell.
    """

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    schedule: NoiseSchedule
    scheduler: dict[str, Any]
    config: AnomalySamplingConfig
    text_words: slice
    inpainting: bool
    empty: Tensor | None
    budget: BatchBudget
    factor: int

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.unet.device


@dataclass(slots=True)
class Filling:
    """A canvas while it is filled.

    Attributes:
        tiling: its windows, in latent cells.
        text: `(n, L, D)`, the prompts of its windows.
        seed: of the candidate.
        normal: z_0 of the canvas, `(C, h, w)`; cells that no window shows are 0.
        inside: m, `(1, h, w)` in {0, 1}: cells that show some of the defect.
        push: s, how far the defect is pushed away from the normal.
        latents: x_t, `(C, h, w)`.
        weights: attention weights of the next step, `(1, h, w)`.
        first: number of the first step that is taken; not 0 in a second pass.
        drawn: the canvas as it was filled in the first pass, `(h, w, 3)` uint8; None in the first.
        shown: `(n, C, s, s)`, what the U-Net sees of the mask in every window; None without inpainting.
    """

    canvas: Canvas
    tiling: Tiling
    text: Tensor
    seed: int
    normal: Tensor
    inside: Tensor
    push: float
    latents: Tensor
    weights: Tensor
    noise: Tensor
    scheduler: Any
    first: int = 0
    drawn: ImageArray | None = None
    shown: Tensor | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def windows(self, values: Tensor) -> Tensor:
        """Cut `(C, h, w)` into the canvas's windows, `(n, C, s, s)`."""
        return self.tiling.cut(values[None])

    def views(self, latents: Tensor) -> Tensor:
        """Cut out what the U-Net sees: windows of noisy latents, and of the mask where it sees masks."""
        windows = self.windows(latents)
        return windows if self.shown is None else torch.cat([windows, self.shown], dim=1)


@torch.no_grad()
def begin(
    painter: Painter, canvas: Canvas, text: Tensor, seed: int, push: float, drawn: ImageArray | None = None
) -> Filling:
    """Encode a canvas and draw its noise, from the candidate's seed alone.

    Args:
        text: `(n, L, D)`, the prompts of its windows.
        push: see `Filling`.
        drawn: the canvas as it was filled at a coarser scale, to begin with after it is noised; None to begin with
            noise alone.
    """
    factor, device = painter.factor, painter.device
    height, width = canvas.mask.shape
    places = tuple((0, row, column) for row, column in (canvas.corners // factor).tolist())
    tiling = Tiling(places, canvas.side // factor, (height // factor, width // factor), 1)

    def encoded(image: ImageArray) -> Tensor:
        windows = to_pixels(canvas.windows(image)).split(FIXED_BATCH)
        return tiling.join(torch.cat([encode(painter.vae, each) for each in windows]))

    normal = encoded(canvas.image)[0]
    inside = F.max_pool2d(torch.from_numpy(canvas.mask).float()[None], factor).to(device)
    use = NOISE if drawn is None else FINER_NOISE
    noise = draw_noise(seed, tuple(normal.shape), use=use).to(device)
    scheduler = make_scheduler(painter.config.scheduler, painter.scheduler)
    scheduler.set_timesteps(painter.config.steps, device=device)
    extra = {}
    if "generator" in inspect.signature(scheduler.step).parameters:
        extra["generator"] = steps_generator(seed, use=use)
    first, start = 0, noise * scheduler.init_noise_sigma
    if drawn is not None:
        first, timestep = start_after(scheduler, painter.config.refine_strength)
        start = scheduler.add_noise(encoded(drawn), noise[None], timestep)[0]
    ones = torch.ones_like(inside)
    filling = Filling(
        canvas, tiling, text, seed, normal, inside, push, start, ones, noise, scheduler, first, drawn, extra=extra
    )
    if painter.inpainting:
        masks = torch.from_numpy(canvas.windows(canvas.mask)).float()[:, None].to(device)
        filling.shown = shown_channels(filling.windows(normal), masks)
    return filling


@torch.no_grad()
def fill(painter: Painter, fillings: Sequence[Filling]) -> Generator[Progress, None, None]:
    """Denoise all canvases together, in place, from the step on that all of them begin with; yields progress."""
    timesteps, first = fillings[0].scheduler.timesteps, fillings[0].first
    meter = Meter("denoise", len(timesteps), "steps", resumed=first)
    text = torch.cat([filling.text for filling in fillings])
    counts = [len(filling.text) for filling in fillings]
    for number, timestep in enumerate(timesteps[first:], start=first):
        for filling in fillings:
            _restore_normal(filling, timestep)
        scaled = [filling.scheduler.scale_model_input(filling.latents, timestep) for filling in fillings]
        views = [filling.views(one) for filling, one in zip(fillings, scaled, strict=True)]
        weights = [filling.windows(filling.weights) for filling in fillings]
        predicted = _predict(painter, torch.cat(views), timestep.long(), text, torch.cat(weights))
        for filling, noisy, windows in zip(fillings, scaled, predicted.split(counts), strict=True):
            _step(painter, filling, noisy, windows, timestep)
        yield meter.report(number + 1)
    for filling in fillings:
        filling.latents = filling.normal + filling.inside * (filling.latents - filling.normal)


def _restore_normal(filling: Filling, timestep: Tensor) -> None:
    """Replace what lies outside the mask by the noised normal."""
    noised = filling.scheduler.add_noise(filling.normal[None], filling.noise[None], timestep[None])[0]
    filling.latents = noised + filling.inside * (filling.latents - noised)


def _predict(painter: Painter, latents: Tensor, timestep: Tensor, text: Tensor, weights: Tensor) -> Tensor:
    """Predict for all windows; a row's result does not depend on the others."""
    config, dtype = painter.config, painter.unet.dtype

    def denoise(rows: Tensor, prompts: Tensor) -> Tensor:
        run = Reweighting(weights[rows], painter.text_words) if config.reweighting else None
        output: Tensor = painter.unet(
            latents[rows].to(dtype, memory_format=torch.channels_last),
            timestep.expand(len(rows)),
            prompts.to(dtype),
            cross_attention_kwargs={"reweighting": run},
        ).sample
        return output.float()

    def guided(rows: Tensor) -> Tensor:
        conditional = denoise(rows, text[rows])
        if painter.empty is None:
            return conditional
        unconditional = denoise(rows, painter.empty.expand(len(rows), -1, -1))
        return unconditional + config.guidance_scale * (conditional - unconditional)

    def by(most: int) -> Tensor:
        at_once = FIXED_BATCH if painter.device.type == "cpu" else most
        return torch.cat([fixed_batches(guided, rows) for rows in torch.arange(len(latents)).split(at_once)])

    return painter.budget.run(by)


def _step(painter: Painter, filling: Filling, noisy: Tensor, windows: Tensor, timestep: Tensor) -> None:
    """Average the windows' predictions, keep the normal outside the mask, and take a step of the scheduler."""
    schedule, step = painter.schedule, timestep.long()[None]
    prediction = filling.tiling.join(windows)
    clean = schedule.predict_clean(noisy[None], prediction, step)
    config, push = painter.config, filling.inside * filling.push
    if config.faint_guidance > 1 and filling.drawn is None:  # nothing is faint in a second pass
        push = push * faint_gains(clean[0], filling.normal, filling.inside, config.faint_guidance)
    blended = filling.normal + push * (clean - filling.normal)
    if config.reweighting:
        filling.weights = attention_weights(blended[0], filling.normal, filling.inside)
    prediction = schedule.prediction_of(noisy[None], blended, step)
    stepped = filling.scheduler.step(prediction, timestep, filling.latents[None], **filling.extra)
    filling.latents = stepped.prev_sample[0]


@torch.no_grad()
def develop(painter: Painter, filling: Filling) -> tuple[Tensor, Tensor]:
    """Decode a filled canvas, and the normal canvas alike: pixels `(3, H, W)` in about [-1, 1] each."""
    both = [filling.windows(latents) for latents in (filling.latents, filling.normal)]
    parts = torch.cat(both).split(FIXED_BATCH)
    generated, reconstructed = torch.cat([decode(painter.vae, part) for part in parts]).chunk(2)
    fine = filling.tiling.scaled(painter.factor)
    return fine.join(generated)[0], fine.join(reconstructed)[0]
