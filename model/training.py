"""Few-shot training of one adapter: both branches' LoRAs, SAIM, BCM and the text LoRA, on a frozen base."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from model.checkpoint import (
    list_checkpoints,
    read_record,
    read_tensors,
    restore_optimizer,
    save_checkpoint,
    step_generator,
)
from model.denoiser import BranchPass
from model.latents import LatentBank, cut_views, encode_views
from model.masks import adapt_u2net
from model.network import PairModel
from model.objective import draw_timesteps, pair_loss
from model.progress import Meter, Progress
from model.types import Pair
from model.u2net import U2Net
from service.core.errors import UsageError

REPORT_EVERY = 5
"""Steps between two reports and two points of the loss curve."""


class Watch(Protocol):
    """Who looks after a training while it runs; whatever it raises ends the training there."""

    def wants_checkpoint(self) -> bool:
        """Asked after every step: whether to write a checkpoint now, besides the regular ones."""

    def saved(self, step: int, checkpoint: Path) -> None:
        """Told of every complete checkpoint, with the model in evaluation mode. Sampling from it changes no weights.

        Args:
            step: steps done.
            checkpoint: its folder; the next checkpoint replaces it.
        """


def train(
    model: PairModel,
    pairs: Sequence[Pair],
    workspace: Path,
    *,
    object_net: U2Net | None = None,
    mask_net: U2Net | None = None,
    watch: Watch | None = None,
) -> Iterator[Progress | list[tuple[int, float]]]:
    """Train `model` (and `mask_net`) in place, going on from the newest checkpoint in `workspace`.

    A resumed training ends with the same weights, bit for bit, as one that was never interrupted: views, timesteps and
    noise of a step depend on the seed and its number alone.

    Args:
        pairs: the few-shot examples.
        workspace: where checkpoints live.
        object_net: finds objects for BCM's backgrounds; required with `config.bcm`.
        mask_net: adapted to the pairs' own parts and masks at the end; None to leave that out.
        watch: asked for extra checkpoints, and told of all.

    Yields:
        Progress, and last the loss curve as `(step, smoothed loss)`.

    Raises:
        UsageError: BCM without a network that finds objects.
    """
    config = model.config
    if config.bcm and object_net is None:
        raise UsageError(
            "background compensation (bcm) needs a U²-Net that finds objects; this base brings none: name one"
        )
    views = cut_views(pairs, config)
    bank = yield from encode_views(model.base, views, object_net if config.bcm else None)
    curve: list[tuple[int, float]] = []
    adapts = mask_net is not None and config.mask_steps > 0
    yield from _optimise(model, bank, workspace, curve, watch, keep_last=adapts)
    if mask_net is not None and adapts:
        yield from adapt_u2net(mask_net, views.parts, views.masks, seed=config.seed, steps=config.mask_steps)
    yield curve


def _optimise(
    model: PairModel,
    bank: LatentBank,
    workspace: Path,
    curve: list[tuple[int, float]],
    watch: Watch | None,
    *,
    keep_last: bool,
) -> Iterator[Progress]:
    """Train to the last step.

    Args:
        keep_last: whether something that takes long follows, so that a checkpoint of the last step is worth its room.
    """
    config = model.config
    trainable = model.trainable()
    optimizer = torch.optim.AdamW(
        [
            {"params": model.lora_parameters(), "lr": config.lr},
            {"params": model.interaction_parameters(), "lr": config.interaction_lr},
        ],
        weight_decay=1e-2,
        fused=True,
    )
    peaks = [group["lr"] for group in optimizer.param_groups]
    begin = 0
    smooth: Tensor | None = None
    if found := list_checkpoints(workspace):
        begin, record = read_record(found[-1])
        _restore(trainable, read_tensors(found[-1], "trainable"))
        restore_optimizer(found[-1], optimizer)
        curve += [(step, value) for step, value in record["curve"]]
        smooth = read_tensors(found[-1], "loss")["smooth"].to(model.device)
    _switch(model, training=True)
    meter = Meter("train", config.steps, "steps", resumed=begin)
    for step in range(begin, config.steps):
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * min(1.0, (step + 1) / max(1, config.warmup))
        loss = torch.zeros((), device=model.device)
        for part in range(config.accumulate):
            generator = step_generator(config.seed, step * config.accumulate + part)
            share = training_loss(model, bank, generator) / config.accumulate
            share.backward()
            loss += share.detach()
        nn.utils.clip_grad_norm_(trainable.values(), config.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        smooth = loss if smooth is None else smooth.lerp(loss, 0.05)
        done = step + 1
        if done % REPORT_EVERY == 0 or done == config.steps:
            curve.append((done, round(float(smooth), 5)))
            yield meter.report(done, loss=curve[-1][1])
        wanted = watch is not None and watch.wants_checkpoint()
        due = keep_last if done == config.steps else done % config.checkpoint_every == 0
        if wanted or due:
            tensors = {name: parameter.data for name, parameter in trainable.items()}
            folder = save_checkpoint(
                workspace, done, {"trainable": tensors, "loss": {"smooth": smooth}}, optimizer, {"curve": curve}
            )
            if watch is not None:
                _switch(model, training=False)
                watch.saved(done, folder)
                _switch(model, training=True)
    _switch(model, training=False)


def _switch(model: PairModel, *, training: bool) -> None:
    model.denoiser.train(training)
    model.text_encoder.train(training)


def training_loss(model: PairModel, bank: LatentBank, generator: torch.Generator) -> Tensor:
    """The objective on one random batch of views; all draws come from `generator`, on the CPU."""
    config = model.config
    chosen = torch.randint(bank.latents.shape[1], (config.batch,), generator=generator)
    latents = bank.latents[:, chosen]
    timesteps = draw_timesteps(config.batch, model.schedule.steps, generator).to(model.device)
    noise = torch.randn(latents.shape, generator=generator).to(model.device)
    noisy = model.schedule.add_noise(latents, noise, timesteps)
    precision = torch.autocast(model.device.type, torch.bfloat16) if config.precision == "bf16" else nullcontext()
    with precision:
        text = model.prompt_embeddings().expand(-1, config.batch, -1, -1)
        run = BranchPass()
        if bank.backgrounds is not None:
            behind = bank.backgrounds[chosen]
            extra = torch.randn(behind.shape, generator=generator).to(model.device)
            noisy_behind = model.schedule.add_noise(behind, extra, timesteps)
            run.background = model.denoiser.background_features(noisy_behind, timesteps, text[0])
        prediction = model.denoiser(noisy, timesteps, text, run)
    target = model.schedule.target(latents, noise, timesteps)
    return pair_loss(prediction, target, bank.masks[chosen], config.defect_weight)


def _restore(trainable: dict[str, nn.Parameter], saved: dict[str, Tensor]) -> None:
    shapes = {name: parameter.shape for name, parameter in trainable.items()}
    found = {name: tensor.shape for name, tensor in saved.items()}
    if differing := sorted({name for name, _ in shapes.items() ^ found.items()}):
        raise UsageError(
            f"the checkpoint was made with other options: {len(differing)} weights differ, first {differing[0]}; "
            "train with the same options or in a new folder"
        )
    for name, parameter in trainable.items():
        parameter.data.copy_(saved[name])
