"""Trains one adapter on a few pairs: both branches' LoRAs, SAIM, BCM and the text LoRA, on a frozen base."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from model.data.placement import NormalImage
from model.dualanodiff.adapter import DualAnoDiffAdapter
from model.dualanodiff.bcm import product_masks
from model.dualanodiff.composites import make_composites, mixed_dataset
from model.dualanodiff.latent_dataset import Crops, LatentDataset, cut_crops, encode_crops
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
from model.training.divergence import require_finite_loss, require_finite_weights
from model.training.early_stopping import LEAST_PAIRS, MEASURE_EVERY, PATIENCE, BestWeights, TrainingResult
from model.types import Pair
from service.core.errors import UsageError

REPORT_EVERY = 5
"""Steps between two reports, and between two points of the loss curve."""


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
    """Train the adapter's model (and `mask_net`) in place, from the newest checkpoint in `workspace` on.

    A resumed training gives the same weights, bit for bit, as an uninterrupted one, because crops, timesteps and noise
    of a step depend only on the seed and the step number. With 0 steps the base stays as it is, and only the mask
    network is adapted.

    Args:
        pairs: the few-shot examples.
        workspace: folder of the checkpoints.
        normals: defect-free images, for composites; required with `config.composites`.
        object_net: finds objects, for BCM's backgrounds and for placing composites; required with `config.bcm`.
        mask_net: fine-tuned on the pairs' parts and masks at the end; None to skip this.
        callback: asked whether to make extra checkpoints, and shown the adapter at every checkpoint.

    Yields:
        Progress, and finally the result.

    Raises:
        UsageError: if BCM is on without a network that finds objects.
        DivergedError: if a loss, or a weight after the last step, is not finite.
    """
    model, config = adapter.model, adapter.model.config
    if config.bcm and object_net is None:
        raise UsageError(
            "background compensation (bcm) needs a U²-Net that finds objects, but this base has none: provide one"
        )
    products = product_masks(pairs, object_net) if config.bcm and object_net is not None else None
    crops = cut_crops(pairs, config, products)
    adapts = mask_net is not None and config.mask_steps > 0
    result = TrainingResult([], 0, 0)
    if config.steps:
        run = yield from _prepare(model, pairs, crops, normals, object_net)
        run.resume(workspace)
        yield from _optimise(run, adapter, workspace, callback, keep_last=adapts)
        result = run.finish()
    if mask_net is not None and adapts:
        yield from adapt_u2net(mask_net, crops.parts, crops.masks, seed=config.seed, steps=config.mask_steps)
    yield result


def _prepare(
    model: DualAnoDiffModel,
    pairs: Sequence[Pair],
    crops: Crops,
    normals: Sequence[NormalImage],
    object_net: U2Net | None,
) -> Generator[Progress, None, _Run]:
    """Encode the crops, and what is made from normals; hold a pair out if that can stop the training early."""
    config = model.config
    held = spare = made = None
    # With fewer steps it could not stop early, so holding a pair out would gain nothing.
    if config.early_stop and len(pairs) >= LEAST_PAIRS and config.steps > PATIENCE * MEASURE_EVERY:
        spare = config.seed % len(pairs)
    if config.composites:
        learned = [pair for number, pair in enumerate(pairs) if number != spare]
        made = yield from make_composites(learned, normals, config, model.base.factor, object_net)
    all_crops = crops if made is None else crops + made.composites + made.good
    dataset = yield from encode_crops(model.base, all_crops)
    if spare is not None:
        dataset, held = dataset.without(slice(spare * config.views, (spare + 1) * config.views))
    if made is not None:
        dataset = mixed_dataset(dataset, len(made.good.images), len(made.composites.images), config)
    return _Run(model, dataset, held, None if spare is None else pairs[spare].name)


class _Run:
    """Holds everything that changes while a model is trained.

    Attributes:
        done: number of steps done.
        best: the best weights so far, measured on the held-out pair; None without one.
    """

    def __init__(
        self, model: DualAnoDiffModel, dataset: LatentDataset, held: LatentDataset | None, held_out: str | None
    ) -> None:
        config = model.config
        self.model = model
        self.trainable = model.trainable()
        self.done = 0
        self.best = None if held is None else BestWeights()
        self._dataset = dataset
        self._held = held
        self._held_out = held_out
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
        """Return whether no step is left."""
        return self.done == self.model.config.steps or (self.best is not None and self.best.exhausted)

    def resume(self, workspace: Path) -> None:
        """Resume from the newest checkpoint, if there is one."""
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
        """Do one step of the optimiser, without waiting for the device."""
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
        """Measure the loss on the held-out pair when it is due.

        Raises:
            DivergedError: if that loss is not finite.
        """
        if self.best is not None and self._held is not None and self.done % MEASURE_EVERY == 0:
            held = self._held
            _switch(self.model, training=False)
            self.best.measure(self.done, lambda: held_out_loss(self.model, held, self._text), self.trainable)
            _switch(self.model, training=True)

    def report(self) -> float:
        """Add a point to the loss curve; returns the last one read.

        Except for the first and the last, a point is read when the next one is added, because it has arrived by then.

        Raises:
            DivergedError: if the loss is not finite.
        """
        self._read()
        self._unread = self.done, LateNumber(self._smooth)
        if self.ended() or not self._curve:
            self._read()
        return self._curve[-1][1]

    def _read(self) -> None:
        if self._unread is not None:
            step, late = self._unread
            self._curve.append((step, round(require_finite_loss(late.read(), step), 5)))
            self._unread = None

    def save(self, checkpoints: BackgroundCheckpoints) -> None:
        """Save the current state as a checkpoint."""
        self._read()
        require_finite_loss(float(self._smooth), self.done)
        tensors = {name: parameter.data for name, parameter in self.trainable.items()}
        files: dict[str, dict[str, Tensor]] = {"trainable": tensors, "loss": {"smooth": self._smooth}}
        record: dict[str, object] = {"curve": self._curve}
        lasting = {}
        if self.best is not None:
            lasting["best"], record["held_out"] = self.best.kept, self.best.record()
        checkpoints.save(self.done, files, self._optimizer, record, lasting)

    def finish(self) -> TrainingResult:
        """Put the best weights back, if some were kept, and return the result of the training.

        Raises:
            DivergedError: if the last step left weights that are not finite.
        """
        if self.best is None:
            require_finite_weights(self.trainable.values(), self.done)
            return TrainingResult(self._curve, self.done, self.done)
        self.best.put_back(self.trainable)
        return TrainingResult(self._curve, self.done, self.best.step, self._held_out, self.best.curve)


def _optimise(
    run: _Run, adapter: DualAnoDiffAdapter, workspace: Path, callback: TrainingCallback | None, *, keep_last: bool
) -> Iterator[Progress]:
    """Train to the last step.

    Args:
        keep_last: whether long work follows, which makes a checkpoint of the last step worthwhile.
    """
    model, config = run.model, run.model.config
    _switch(model, training=True)
    meter = Meter("train", config.steps, "steps", resumed=run.done)
    if not run.ended():  # the first step may take minutes
        yield meter.report(run.done)
    with BackgroundCheckpoints(workspace, callback.on_saved if callback is not None else _ignore) as checkpoints:
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


def _ignore(step: int, checkpoint: Path) -> None:
    pass


def _note(run: _Run) -> str:
    if run.best is None or run.done == run.model.config.steps or not run.ended():
        return ""
    return f"stopped early: the loss on the held-out pair was lowest after {run.best.step} steps"


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
            "use the same options, or train in a new folder"
        )
    for name, parameter in trainable.items():
        parameter.data.copy_(saved[name])
