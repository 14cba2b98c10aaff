"""Stops training when it no longer helps: measures the loss on a held-out pair, and keeps the best weights.

Small sets overfit: the loss on the training crops keeps falling, while other pairs are predicted worse again. Every
measurement uses the same noise and timesteps, so only the weights differ between measurements.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from model.training.divergence import require_finite_loss

LEAST_PAIRS = 5
"""Least number of pairs from which one is held out."""

LEAST_OF_TYPE = 3
"""Least number of pairs of a defect type from which one is held out: what is left shows how it varies."""

MEASURE_EVERY = 50
"""Steps between two measurements: a forward pass over 16 crops costs about one step of a batch of 4, so 2 % of them."""

SMOOTHED_OVER = 3
"""Number of measurements that are averaged."""

PATIENCE = 10
"""Number of measurements without a new best after which training stops."""


def is_due(step: int) -> bool:
    """Return whether the held-out pair is measured after this step."""
    return step % MEASURE_EVERY == 0


def spare_pair(types: Sequence[int], steps: int, seed: int) -> int | None:
    """Choose which pair to hold out; None where there are too few, in all or of each defect type.

    With fewer steps a training could not stop early, so holding a pair out would gain nothing.

    Args:
        types: number of each pair's defect type.
    """
    if len(types) < LEAST_PAIRS or steps <= PATIENCE * MEASURE_EVERY:
        return None
    spared = [number for number, kind in enumerate(types) if types.count(kind) >= LEAST_OF_TYPE]
    return spared[seed % len(spared)] if spared else None


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """The result of a training.

    Attributes:
        curve: `(step, smoothed loss)`.
        steps: number of steps after which it stopped.
        kept: the step of the model's weights: the best measured one if a pair was held out, otherwise the last.
        held_out: name of the held-out pair, or None.
        held_out_curve: `(step, loss)` on that pair.
        normals: names of the good parts that were learned from.
    """

    curve: list[tuple[int, float]]
    steps: int
    kept: int
    held_out: str | None = None
    held_out_curve: list[tuple[int, float]] = field(default_factory=list)
    normals: tuple[str, ...] = ()


@dataclass(slots=True)
class BestWeights:
    """Records the measurements, and keeps a copy of the best weights.

    Attributes:
        curve: `(step, loss)` on the held-out pair.
        kept: name → tensor on the CPU, contiguous and never changed; empty before the first measurement.
        step: the step of these weights.
    """

    curve: list[tuple[int, float]] = field(default_factory=list)
    kept: dict[str, Tensor] = field(default_factory=dict)
    step: int = 0

    @classmethod
    def restored(cls, record: Mapping[str, Any], kept: dict[str, Tensor]) -> BestWeights:
        """Restore from saved `record` and `kept`."""
        return cls([(step, value) for step, value in record["curve"]], kept, record["step"])

    def record(self) -> dict[str, Any]:
        """Return everything except the weights, as JSON."""
        return {"curve": [list(point) for point in self.curve], "step": self.step}

    def measure(self, step: int, loss: Callable[[], Tensor], trained: Mapping[str, nn.Parameter]) -> None:
        """Measure after `step` steps, and keep the weights if they are the best.

        Raises:
            DivergedError: if the measured loss is not finite.
        """
        with torch.no_grad():
            self.curve.append((step, round(require_finite_loss(float(loss()), step), 5)))
        smooth = self._smooth()
        if smooth[-1] == min(smooth):
            self.step = step
            self.kept = {
                name: value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
                for name, value in trained.items()
            }

    @property
    def exhausted(self) -> bool:
        """Return whether training should stop, because there was no new best for long."""
        return len([step for step, _ in self.curve if step > self.step]) >= PATIENCE

    def put_back(self, trained: Mapping[str, nn.Parameter]) -> None:
        """Copy the best weights into the network."""
        for name, value in self.kept.items():
            trained[name].data.copy_(value)

    def _smooth(self) -> Sequence[float]:
        values = [value for _, value in self.curve]
        recent = (values[max(0, end - SMOOTHED_OVER) : end] for end in range(1, len(values) + 1))
        return [sum(part) / len(part) for part in recent]
