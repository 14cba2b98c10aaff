"""One resumable loop for every network of the embedded base: checkpoint, moving average, learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from model.checkpoint import list_checkpoints, read_record, read_tensors, restore_optimizer, save_checkpoint
from model.progress import Meter, Progress

LossFunction = Callable[[int], Tensor]
"""Step number → scalar loss; draws whatever is random from `step_generator(seed, step)`."""


@dataclass(frozen=True, slots=True)
class LoopConfig:
    """How long and how fast to train.

    Attributes:
        steps: steps in all, resumed ones included.
        lr: peak learning rate.
        warmup: steps of linear warm-up.
        decay_share: the last share of the steps, over which the rate falls along a cosine to 2 % of its peak.
        average_decay: decay of the exponential moving average of the weights that is kept beside the trained ones.
        checkpoint_every: steps between two checkpoints.
        clip_norm: gradients are clipped to this norm.
    """

    steps: int
    lr: float
    warmup: int = 200
    decay_share: float = 0.3
    average_decay: float = 0.999
    checkpoint_every: int = 500
    clip_norm: float = 1.0
    weight_decay: float = 1e-4

    def rate(self, step: int) -> float:
        """Learning rate of `step` (0-based)."""
        warm = min(1.0, (step + 1) / max(1, self.warmup))
        begin = self.steps * (1 - self.decay_share)
        if step < begin:
            return self.lr * warm
        fraction = min(1.0, (step - begin) / max(1.0, self.steps - begin))
        return self.lr * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * fraction)))


def averaged_name(name: str) -> str:
    """File name under which a module's moving average is kept in a checkpoint."""
    return f"{name}_average"


def run_loop(
    modules: Mapping[str, nn.Module], loss_of: LossFunction, folder: Path, config: LoopConfig, stage: str
) -> Iterator[Progress]:
    """Train `modules` in place, going on from the newest checkpoint in `folder`; at the end they hold their average.

    Args:
        modules: name → network; all their parameters that require gradients are trained.
        loss_of: the loss of one step.
        folder: where checkpoints live.
        stage: what the progress calls it.
    """
    parameters = [p for module in modules.values() for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=config.lr, betas=(0.9, 0.99), weight_decay=config.weight_decay, fused=True
    )
    begin, curve = 0, []
    averages = {name: {k: v.detach().clone() for k, v in m.state_dict().items()} for name, m in modules.items()}
    if found := list_checkpoints(folder):
        begin, record = read_record(found[-1])
        curve = record["curve"]
        for name, module in modules.items():
            module.load_state_dict(read_tensors(found[-1], name))
            for key, saved in read_tensors(found[-1], averaged_name(name)).items():
                averages[name][key].copy_(saved)
        restore_optimizer(found[-1], optimizer)
    meter = Meter(stage, config.steps, "steps", resumed=begin)
    smooth: Tensor | None = None
    for step in range(begin, config.steps):
        for group in optimizer.param_groups:
            group["lr"] = config.rate(step)
        loss = loss_of(step)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, config.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        decay = min(config.average_decay, (step + 1) / (step + 10))
        for name, module in modules.items():
            _update_average(averages[name], module, decay)
        smooth = loss.detach() if smooth is None else smooth.lerp(loss.detach(), 0.02)
        done = step + 1
        if done % 20 == 0 or done == config.steps:
            value = float(smooth)
            curve.append([done, round(value, 5)])
            yield meter.report(done, loss=value)
        if done % config.checkpoint_every == 0 or done == config.steps:
            states: dict[str, nn.Module | Mapping[str, Tensor]] = dict(modules)
            states.update({averaged_name(name): average for name, average in averages.items()})
            save_checkpoint(folder, done, states, optimizer, {"curve": curve})
    for name, module in modules.items():
        module.load_state_dict(averages[name])


@torch.no_grad()
def _update_average(average: dict[str, Tensor], module: nn.Module, decay: float) -> None:
    state = module.state_dict()
    floating = [key for key, value in state.items() if value.is_floating_point()]
    torch._foreach_lerp_([average[key] for key in floating], [state[key] for key in floating], 1 - decay)
    for key in state.keys() - set(floating):
        average[key].copy_(state[key])
