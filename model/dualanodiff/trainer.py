"""Few-shot training of one adapter: both branches' LoRAs, SAIM, BCM and the text LoRA, on a frozen base."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from model.data.placement import NormalImage
from model.dualanodiff.adapter import DualAnoDiffAdapter
from model.dualanodiff.composites import make_composites, mixed_dataset
from model.dualanodiff.latent_dataset import LatentDataset, cut_crops, encode_crops
from model.dualanodiff.loss import embedded_prompts, held_out_loss, training_loss
from model.dualanodiff.model import DualAnoDiffModel
from model.masks.finetune import adapt_u2net
from model.masks.u2net import U2Net
from model.method import TrainingCallback
from model.runtime import switches
from model.runtime.progress import Meter, Progress
from model.runtime.seeding import step_generator
from model.runtime.switches import Switch
from model.runtime.transfer import LateNumber
from model.training.checkpoint import (
    BackgroundCheckpoints,
    list_checkpoints,
    read_record,
    read_tensors,
    restore_optimizer,
)
from model.training.early_stopping import LEAST_PAIRS, MEASURE_EVERY, PATIENCE, BestWeights, TrainingResult
from model.types import Pair
from service.core.errors import DivergedError, UsageError

REPORT_EVERY = 5
"""Steps between two reports and two points of the loss curve."""


def train(
    adapter: DualAnoDiffAdapter,
    pairs: Sequence[Pair],
    workspace: Path,
    *,
    normals: Sequence[NormalImage] = (),
    object_net: U2Net | None = None,
    mask_net: U2Net | None = None,
    callback: TrainingCallback | None = None,
) -> Iterator[Progress | TrainingResult]:
    """Train the adapter's model (and `mask_net`) in place, going on from the newest checkpoint in `workspace`.

    A resumed training ends with the same weights, bit for bit, as one that was never interrupted: crops, timesteps and
    noise of a step depend on the seed and its number alone.

    Args:
        pairs: the few-shot examples.
        workspace: where checkpoints live.
        normals: good parts, for composites; required with `config.composites`.
        object_net: finds objects for BCM's backgrounds, and for composites to lie on; required with `config.bcm`.
        mask_net: adapted to the pairs' own parts and masks at the end; None to leave that out.
        callback: asked for extra checkpoints, and shown the adapter at all.

    Yields:
        Progress, and last what came of it.

    Raises:
        UsageError: BCM without a network that finds objects.
        DivergedError: the loss is no finite number.
    """
    model, config = adapter.model, adapter.model.config
    if config.bcm and object_net is None:
        raise UsageError(
            "background compensation (bcm) needs a U²-Net that finds objects; this base brings none: name one"
        )
    held = spare = made = None
    # In fewer steps it could not stop, and the pair would be lost for nothing.
    if config.early_stop and len(pairs) >= LEAST_PAIRS and config.steps > PATIENCE * MEASURE_EVERY:
        spare = config.seed % len(pairs)
    crops = cut_crops(pairs, config)
    if config.composites:
        learned = [pair for number, pair in enumerate(pairs) if number != spare]
        made = yield from make_composites(learned, normals, config, model.base.factor, object_net)
    all_crops = crops if made is None else crops + made.composites + made.good
    dataset = yield from encode_crops(model.base, all_crops, object_net if config.bcm else None)
    if spare is not None:
        dataset, held = dataset.without(slice(spare * config.views, (spare + 1) * config.views))
    if made is not None:
        dataset = mixed_dataset(dataset, len(made.good.images), len(made.composites.images), config)
    run = _Run(model, dataset, held)
    run.resume(workspace)
    adapts = mask_net is not None and config.mask_steps > 0
    yield from _optimise(run, adapter, workspace, callback, keep_last=adapts)
    if run.best is not None:
        run.best.put_back(run.trainable)
    if mask_net is not None and adapts:
        yield from adapt_u2net(mask_net, crops.parts, crops.masks, seed=config.seed, steps=config.mask_steps)
    yield run.result(None if spare is None else pairs[spare].name)


class _Run:
    """All that changes while a model is trained.

    Attributes:
        done: steps so far.
        best: the best weights so far, on a held-out pair; None without one.
    """

    def __init__(self, model: DualAnoDiffModel, dataset: LatentDataset, held: LatentDataset | None) -> None:
        config = model.config
        self.model = model
        self.trainable = model.trainable()
        self.done = 0
        self.best = None if held is None else BestWeights()
        self._dataset = dataset
        self._held = held
        self._curve: list[tuple[int, float]] = []
        self._unread: tuple[int, LateNumber] | None = None
        self._smooth = torch.zeros((), device=model.device)
        self._optimizer = torch.optim.AdamW(
            [
                {"params": model.lora_parameters(), "lr": config.lr},
                {"params": model.interaction_parameters(), "lr": config.interaction_lr},
            ],
            weight_decay=1e-2,
            fused=switches.on(Switch.FUSED_ADAM),
        )
        self._peaks = [group["lr"] for group in self._optimizer.param_groups]
        kept = not config.text_rank and switches.on(Switch.KEPT_PROMPTS)
        self._text = embedded_prompts(model).detach() if kept else None

    def ended(self) -> bool:
        """Whether there is no step left to do."""
        return self.done == self.model.config.steps or (self.best is not None and self.best.exhausted)

    def resume(self, workspace: Path) -> None:
        """Go on from the newest checkpoint, if there is one."""
        if not (found := list_checkpoints(workspace)):
            return
        self.done, record = read_record(found[-1])
        _restore(self.trainable, read_tensors(found[-1], "trainable"))
        restore_optimizer(found[-1], self._optimizer)
        self._curve = [(step, value) for step, value in record["curve"]]
        self._smooth = read_tensors(found[-1], "loss")["smooth"].to(self.model.device)
        if self.best is not None:
            self.best = BestWeights.restored(record["held_out"], read_tensors(found[-1], "best"))

    def step(self) -> None:
        """One step of the optimiser; nothing in it waits for the device."""
        config = self.model.config
        for group, peak in zip(self._optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * min(1.0, (self.done + 1) / max(1, config.warmup))
        loss = torch.zeros((), device=self.model.device)
        for part in range(config.accumulate):
            generator = step_generator(config.seed, self.done * config.accumulate + part)
            share = training_loss(self.model, self._dataset, generator, self._text) / config.accumulate
            share.backward()
            loss += share.detach()
        nn.utils.clip_grad_norm_(self.trainable.values(), config.clip_norm)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._smooth = self._smooth.lerp(loss, 0.05) if self.done else loss
        self.done += 1

    def measure(self) -> None:
        """The loss on the held-out pair, when it is due."""
        if self.best is not None and self._held is not None and self.done % MEASURE_EVERY == 0:
            held = self._held
            _switch(self.model, training=False)
            self.best.measure(self.done, lambda: held_out_loss(self.model, held, self._text), self.trainable)
            _switch(self.model, training=True)

    def report(self) -> float:
        """Note a point of the loss curve; returns the last one that was read.

        Raises:
            DivergedError: it is no finite number.

        But for the first and the last, a point is read when the next one is noted: by then it has arrived.
        """
        self._read()
        self._unread = self.done, LateNumber(self._smooth)
        if self.ended() or not self._curve:
            self._read()
        return self._curve[-1][1]

    def _read(self) -> None:
        if self._unread is not None:
            step, late = self._unread
            self._curve.append((step, round(_finite(late.read(), step), 5)))
            self._unread = None

    def save(self, checkpoints: BackgroundCheckpoints) -> None:
        """Have the state as it is now written."""
        self._read()
        _finite(float(self._smooth), self.done)
        tensors = {name: parameter.data for name, parameter in self.trainable.items()}
        files: dict[str, dict[str, Tensor]] = {"trainable": tensors, "loss": {"smooth": self._smooth}}
        record: dict[str, object] = {"curve": self._curve}
        lasting = {}
        if self.best is not None:
            lasting["best"], record["held_out"] = self.best.kept, self.best.record()
        checkpoints.save(self.done, files, self._optimizer, record, lasting)

    def result(self, held_out: str | None) -> TrainingResult:
        """What came of it."""
        if self.best is None:
            return TrainingResult(self._curve, self.done, self.done)
        return TrainingResult(self._curve, self.done, self.best.step, held_out, self.best.curve)


def _finite(loss: float, step: int) -> float:
    """The loss.

    Raises:
        DivergedError: it is infinite or no number.
    """
    if not math.isfinite(loss):
        raise DivergedError(
            f"the loss was {loss} by step {step}: lower lr and interaction_lr, to a tenth for a start, allow some "
            "warmup steps, or use precision fp32",
            "The training diverged",
        )
    return loss


def _optimise(
    run: _Run, adapter: DualAnoDiffAdapter, workspace: Path, callback: TrainingCallback | None, *, keep_last: bool
) -> Iterator[Progress]:
    """Train to the last step.

    Args:
        keep_last: whether something that takes long follows, so that a checkpoint of the last step is worth its room.
    """
    model, config = run.model, run.model.config
    _switch(model, training=True)
    meter = Meter("train", config.steps, "steps", resumed=run.done)
    with BackgroundCheckpoints(workspace, callback.on_saved if callback is not None else _nobody) as checkpoints:
        while not run.ended():
            run.step()
            run.measure()
            if run.done % REPORT_EVERY == 0 or run.ended():
                yield meter.report(run.done, loss=run.report(), note=_note(run))
            checkpoints.poll()
            wanted = callback is not None and callback.wants_checkpoint()
            due = keep_last if run.ended() else run.done % config.checkpoint_every == 0
            if wanted or due:
                run.save(checkpoints)
            if callback is not None and (wanted or (due and not run.ended())):
                _switch(model, training=False)
                callback.on_checkpoint(run.done, adapter)
                _switch(model, training=True)
            if wanted:
                checkpoints.wait()
    _switch(model, training=False)


def _nobody(step: int, checkpoint: Path) -> None:
    pass


def _note(run: _Run) -> str:
    if run.best is None or run.done == run.model.config.steps or not run.ended():
        return ""
    return f"stopped early: the held-out pair was predicted best after {run.best.step} steps"


def _switch(model: DualAnoDiffModel, *, training: bool) -> None:
    model.denoiser.train(training)
    model.text_encoder.train(training)


def _restore(trainable: dict[str, nn.Parameter], saved: dict[str, Tensor]) -> None:
    shapes = {name: parameter.shape for name, parameter in trainable.items()}
    found = {name: tensor.shape for name, tensor in saved.items()}
    if differing := sorted({name for name, _ in shapes.items() ^ found.items()}):
        raise UsageError(
            f"the checkpoint was made with other options or by another version: {len(differing)} weights differ, "
            f"first {differing[0]}; "
            "train with the same options or in a new folder"
        )
    for name, parameter in trainable.items():
        parameter.data.copy_(saved[name])
