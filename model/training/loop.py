"""The training loop that all trained methods share: steps, checkpoints, loss curve, early stopping, exact resume."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

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
from model.training.early_stopping import BestWeights, TrainingResult, is_due
from service.core.errors import UsageError

_Adapter = TypeVar("_Adapter")
_Adapter_contra = TypeVar("_Adapter_contra", contravariant=True)

REPORT_EVERY = 5
"""Steps between two reports, and between two points of the loss curve."""


class LoopSettings(Protocol):
    """The training options that the loop reads."""

    @property
    def seed(self) -> int: ...
    @property
    def steps(self) -> int: ...
    @property
    def accumulate(self) -> int: ...
    @property
    def warmup(self) -> int: ...
    @property
    def clip_norm(self) -> float: ...
    @property
    def checkpoint_every(self) -> int: ...


class CheckpointCallback(Protocol[_Adapter_contra]):
    """Watches a training while it runs; an exception that it raises ends the training."""

    def wants_checkpoint(self) -> bool:
        """Say after every step whether to write a checkpoint now, besides the regular ones."""

    def on_checkpoint(self, step: int, adapter: _Adapter_contra) -> None:
        """Look at the adapter as it is at a checkpoint, while that is being written.

        The last step is not shown unless its checkpoint was wanted: the finished adapter shows it.

        Args:
            step: steps done.
            adapter: good for sampling until this returns, which changes no weights. Its mask network is not adapted
                yet, its loss curve empty.
        """

    def on_saved(self, step: int, checkpoint: Path) -> None:
        """Take note of a complete checkpoint, some steps after it was taken.

        Args:
            step: steps done when it was taken.
            checkpoint: its folder; the next checkpoint replaces it.
        """


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A pair that is not trained on.

    Attributes:
        name: of the pair.
        loss: measures the objective on it, at the same timesteps and noise in every call.
    """

    name: str
    loss: Callable[[], Tensor]


class TrainingRun:
    """Holds everything that changes while a method is trained.

    Args:
        settings: the training options.
        trainable: name → parameter of all that is trained.
        groups: parameters and their learning rate; together they are `trainable`.
        loss: computes the objective on one random batch; everything it draws comes from the generator, on the CPU.
        set_training: switches the networks to training, or to evaluation.
        held: a pair that is held out, on which the best weights are found; None without.

    Attributes:
        done: number of steps done.
        best: the best weights so far, measured on the held-out pair; None without one.
    """

    def __init__(
        self,
        settings: LoopSettings,
        trainable: Mapping[str, nn.Parameter],
        groups: Sequence[tuple[Sequence[nn.Parameter], float]],
        loss: Callable[[torch.Generator], Tensor],
        set_training: Callable[[bool], object],
        held: HeldOut | None = None,
    ) -> None:
        self.settings = settings
        self.trainable = trainable
        self.set_training = set_training
        self.done = 0
        self.best = None if held is None else BestWeights()
        self._loss = loss
        self._held = held
        self._device = next(iter(trainable.values())).device
        self._curve: list[tuple[int, float]] = []
        self._unread: tuple[int, LateNumber] | None = None
        self._smooth = torch.zeros((), device=self._device)
        self._optimizer = torch.optim.AdamW(
            [{"params": list(parameters), "lr": rate} for parameters, rate in groups],
            weight_decay=1e-2,
            fused=switches.on(Switch.FUSED_ADAM),
        )
        self._peaks = [group["lr"] for group in self._optimizer.param_groups]

    def ended(self) -> bool:
        """Return whether no step is left."""
        return self.done == self.settings.steps or (self.best is not None and self.best.exhausted)

    def resume(self, workspace: Path) -> None:
        """Resume from the newest checkpoint, if there is one."""
        if not (found := list_checkpoints(workspace)):
            return
        self.done, record = read_record(found[-1])
        _restore(self.trainable, read_tensors(found[-1], "trainable"))
        restore_optimizer(found[-1], self._optimizer)
        self._curve = [(step, value) for step, value in record["curve"]]
        self._smooth = read_tensors(found[-1], "loss")["smooth"].to(self._device)
        if self.best is not None:
            self.best = BestWeights.restored(record["held_out"], read_tensors(found[-1], "best"))

    def step(self) -> None:
        """Do one step of the optimiser, without waiting for the device."""
        settings = self.settings
        for group, peak in zip(self._optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * min(1.0, (self.done + 1) / max(1, settings.warmup))
        loss = torch.zeros((), device=self._device)
        for part in range(settings.accumulate):
            share = self._loss(step_generator(settings.seed, self.done * settings.accumulate + part))
            share = share / settings.accumulate
            share.backward()
            loss += share.detach()
        nn.utils.clip_grad_norm_(self.trainable.values(), settings.clip_norm)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._smooth = self._smooth.lerp(loss, 0.05) if self.done else loss
        self.done += 1

    def measure(self) -> None:
        """Measure the loss on the held-out pair when it is due.

        Raises:
            DivergedError: if that loss is not finite.
        """
        if self.best is not None and self._held is not None and is_due(self.done):
            self.set_training(False)
            self.best.measure(self.done, self._held.loss, self.trainable)
            self.set_training(True)

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
        name = None if self._held is None else self._held.name
        return TrainingResult(self._curve, self.done, self.best.step, name, self.best.curve)

    def note(self) -> str:
        """Return a note for the user: why the training has ended before its last step, or nothing."""
        if self.best is None or self.done == self.settings.steps or not self.ended():
            return ""
        return f"stopped early: the loss on the held-out pair was lowest after {self.best.step} steps"


def optimise(
    run: TrainingRun,
    adapter: _Adapter,
    workspace: Path,
    callback: CheckpointCallback[_Adapter] | None,
    *,
    keep_last: bool = False,
) -> Iterator[Progress]:
    """Train to the last step.

    Args:
        adapter: what is trained, shown to the callback.
        workspace: folder of the checkpoints.
        keep_last: whether long work follows, which makes a checkpoint of the last step worthwhile.
    """
    settings = run.settings
    run.set_training(True)
    meter = Meter("train", settings.steps, "steps", resumed=run.done)
    if not run.ended():  # the first step may take minutes
        yield meter.report(run.done)
    with BackgroundCheckpoints(workspace, callback.on_saved if callback is not None else _ignore) as checkpoints:
        while not run.ended():
            run.step()
            run.measure()
            if run.done % REPORT_EVERY == 0 or run.ended():
                yield meter.report(run.done, loss=run.report(), note=run.note())
            checkpoints.poll()
            wanted = callback is not None and callback.wants_checkpoint()
            due = keep_last if run.ended() else run.done % settings.checkpoint_every == 0
            if wanted or due:
                run.save(checkpoints)
            if callback is not None and (wanted or (due and not run.ended())):
                run.set_training(False)
                callback.on_checkpoint(run.done, adapter)
                run.set_training(True)
            if wanted:
                checkpoints.wait()
    run.set_training(False)


def _ignore(step: int, checkpoint: Path) -> None:
    pass


def _restore(trainable: Mapping[str, nn.Parameter], saved: Mapping[str, Tensor]) -> None:
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
