"""Trains any network of the embedded base in a resumable loop, with moving average and learning-rate schedule.

A run's length is a number of steps, or seconds of training; by the clock, the learning rate is fully decayed at the end
on any machine. A run may be stopped, resumed, and extended.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from model.runtime.progress import Meter, Progress
from model.training.checkpoint import list_checkpoints, read_record, read_tensors, restore_optimizer, save_checkpoint
from model.training.divergence import require_finite_loss, require_finite_weights

LossFunction = Callable[[int], Tensor]
"""Step number → scalar loss; all randomness comes from `draws_of(seed, step, device)`."""

REPORT_EVERY = 20
"""Steps between two progress reports, which read the clock and wait for the GPU."""

AGAIN = (
    "run the same command again, which goes on from the last checkpoint; if it diverges there again, begin in another "
    "folder, or lower the rate of this stage in model/pretrain/presets.py"
)
"""What to do if a training diverges: the learning rates belong to the presets."""


@dataclass(frozen=True, slots=True)
class LoopConfig:
    """Length and learning rate of a training.

    Attributes:
        lr: peak learning rate.
        steps: total number of steps, resumed runs included; None if `seconds` sets the length.
        seconds: total seconds of training, resumed runs included. A loop needs one of the two.
        warmup: steps of linear warm-up.
        decay_share: last share of the run, in which the rate falls along a cosine to 2 % of its peak.
        average_decay: decay of the exponential moving average of the weights.
        checkpoint_every: steps between two checkpoints, if `steps` sets the length.
        checkpoint_seconds: seconds between two checkpoints, if `seconds` sets the length.
        clip_norm: largest norm of gradients; larger ones are scaled down.
    """

    lr: float
    steps: int | None = None
    seconds: float | None = None
    warmup: int = 200
    decay_share: float = 0.3
    average_decay: float = 0.999
    checkpoint_every: int = 500
    checkpoint_seconds: float = 120.0
    clip_norm: float = 1.0
    weight_decay: float = 1e-4

    def done(self, step: int, spent: float) -> float:
        """Return the share of the run that is done after `step` steps and `spent` seconds, in [0, 1]."""
        if self.steps is not None:
            return min(1.0, step / self.steps)
        if self.seconds is not None:
            return min(1.0, spent / self.seconds)
        raise ValueError("neither steps nor seconds say how long the run is")

    def due(self, step: int, since: float) -> bool:
        """Return whether a checkpoint is due after `step` steps, `since` seconds after the last one."""
        return step % self.checkpoint_every == 0 if self.steps is not None else since >= self.checkpoint_seconds

    def rate(self, step: int, spent: float = 0.0) -> float:
        """Return the learning rate of `step` (0-based), after `spent` seconds of training."""
        warm = min(1.0, (step + 1) / max(1, self.warmup))
        left = (1 - self.done(step, spent)) / self.decay_share if self.decay_share > 0 else 1.0
        return self.lr * warm * (0.02 + 0.98 * 0.5 * (1 - math.cos(math.pi * min(1.0, left))))


def draws_of(seed: int, step: int, device: torch.device) -> tuple[torch.Generator, np.random.Generator]:
    """Make generators that depend on `(seed, step)` alone: one on the device, and one for decisions in Python."""
    rng = np.random.default_rng([seed, step])
    return torch.Generator(device).manual_seed(int(rng.integers(2**62))), rng


def averaged_name(name: str) -> str:
    """Return the file name of a module's moving average in a checkpoint."""
    return f"{name}_average"


def is_over(folder: Path, config: LoopConfig) -> bool:
    """Return whether a run is complete, by its newest checkpoint."""
    found = list_checkpoints(folder)
    if not found:
        return False
    step, record = read_record(found[-1])
    return config.done(step, record["seconds"]) == 1


def steps_taken(folder: Path) -> int:
    """Return the steps of a run's newest checkpoint; 0 without any."""
    found = list_checkpoints(folder)
    return read_record(found[-1])[0] if found else 0


def run_loop(
    modules: Mapping[str, nn.Module], loss_of: LossFunction, folder: Path, config: LoopConfig, stage: str
) -> Iterator[Progress]:
    """Train `modules` in place, from the newest checkpoint in `folder` on; at the end they hold their average.

    Args:
        modules: name → network; all their parameters that require gradients are trained.
        loss_of: computes the loss of one step.
        folder: folder of the checkpoints.
        stage: its name in progress reports.

    Raises:
        DivergedError: if a loss is not finite, or a weight that would be kept.

    Yields:
        Progress in steps, or in seconds if these set the length; its note then has the steps.
    """
    parameters = [p for module in modules.values() for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=config.lr, betas=(0.9, 0.99), weight_decay=config.weight_decay, fused=True
    )
    averages = {name: {k: v.detach().clone() for k, v in m.state_dict().items()} for name, m in modules.items()}
    begin, record = _resumed(folder, modules, averages, optimizer)
    curve, before = record["curve"], record["seconds"]
    meter = _Reports(stage, config, begin, before)
    smooth: Tensor | None = None
    saved_at = started = time.monotonic()
    step, spent = begin, before
    while config.done(step, spent) < 1:
        for group in optimizer.param_groups:
            group["lr"] = config.rate(step, spent)
        loss = loss_of(step)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, config.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        decay = min(config.average_decay, step / (step + 9))
        for name, module in modules.items():
            _update_average(averages[name], module, decay)
        smooth = loss.detach() if smooth is None else smooth.lerp(loss.detach(), 0.02)
        if report := step % REPORT_EVERY == 0 or step == config.steps:
            value = require_finite_loss(float(smooth), step, AGAIN)
            curve.append([step, round(value, 5)])
        now = time.monotonic()
        spent = before + now - started
        over = config.done(step, spent) == 1
        due = config.due(step, now - saved_at)
        if due or over:
            saved_at = now
            require_finite_loss(float(smooth), step, AGAIN)
            require_finite_weights(parameters, step, AGAIN)
            states: dict[str, nn.Module | Mapping[str, Tensor]] = dict(modules)
            states.update({averaged_name(name): average for name, average in averages.items()})
            save_checkpoint(folder, step, states, optimizer, {"curve": curve, "seconds": spent})
        if report:
            yield meter.report(step, spent, value)
    for name, module in modules.items():
        module.load_state_dict(averages[name])


def _resumed(
    folder: Path,
    modules: Mapping[str, nn.Module],
    averages: Mapping[str, dict[str, Tensor]],
    optimizer: torch.optim.Optimizer,
) -> tuple[int, dict[str, Any]]:
    """Restore the newest checkpoint, if there is one; returns `(step, record)`."""
    found = list_checkpoints(folder)
    if not found:
        return 0, {"curve": [], "seconds": 0.0}
    for name, module in modules.items():
        module.load_state_dict(read_tensors(found[-1], name))
        for key, saved in read_tensors(found[-1], averaged_name(name)).items():
            averages[name][key].copy_(saved)
    restore_optimizer(found[-1], optimizer)
    return read_record(found[-1])


class _Reports:
    """Makes progress reports of one run of a loop, in its own unit."""

    def __init__(self, stage: str, config: LoopConfig, step: int, spent: float) -> None:
        self._stage, self._begin, self._before = stage, step, spent
        self._seconds = config.seconds if config.steps is None else None
        self._meter = Meter(stage, config.steps or 0, "steps", resumed=step)

    def report(self, step: int, spent: float, loss: float) -> Progress:
        if self._seconds is None:
            return self._meter.report(step, loss=loss)
        left = max(0.0, self._seconds - spent)
        total = round(self._seconds)
        pace = (step - self._begin) / max(spent - self._before, 1e-6)
        note = f"step {step}, {pace:.2f} steps/s"
        return Progress(self._stage, total - round(left), total, "seconds", eta=left, loss=loss, note=note)


@torch.no_grad()
def _update_average(average: dict[str, Tensor], module: nn.Module, decay: float) -> None:
    state = module.state_dict()
    floating = [key for key, value in state.items() if value.is_floating_point()]
    torch._foreach_lerp_([average[key] for key in floating], [state[key] for key in floating], 1 - decay)
    for key in state.keys() - set(floating):
        average[key].copy_(state[key])
