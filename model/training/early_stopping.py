"""Whether training still helps: the objective on a pair that it does not learn from, and the best weights so far.

Small sets overfit: the loss on the views that are learned from falls as long as one likes, while pairs that are not
among them are predicted worse again. The measure is taken at one and the same noise and timesteps every time, so what
changes from one to the next are the weights alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

LEAST_PAIRS = 5
"""From so many pairs on one can be spared."""

MEASURE_EVERY = 50
"""Steps between two measures: a pass forwards over 16 views is about one step of a batch of 4, a fiftieth of them."""

SMOOTHED_OVER = 3
"""Measures whose mean counts."""

PATIENCE = 10
"""Measures without a new best after which training stops."""


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What a training tells at its end.

    Attributes:
        curve: `(step, smoothed loss)`.
        steps: after so many steps it stopped.
        kept: the step whose weights the model has now: the best measured one where a pair was held out, else the last.
        held_out: name of the pair that was not learned from, or None.
        held_out_curve: `(step, loss)` on that pair.
    """

    curve: list[tuple[int, float]]
    steps: int
    kept: int
    held_out: str | None = None
    held_out_curve: list[tuple[int, float]] = field(default_factory=list)


@dataclass(slots=True)
class BestWeights:
    """What was measured so far, and a copy of the trained weights where it was best.

    Attributes:
        curve: `(step, loss)` on the held-out pair.
        kept: name → tensor on the CPU, contiguous and never changed; empty before the first measure.
        step: which step's weights these are.
    """

    curve: list[tuple[int, float]] = field(default_factory=list)
    kept: dict[str, Tensor] = field(default_factory=dict)
    step: int = 0

    @classmethod
    def restored(cls, record: Mapping[str, Any], kept: dict[str, Tensor]) -> BestWeights:
        """From what `record` and `kept` were."""
        return cls([(step, value) for step, value in record["curve"]], kept, record["step"])

    def record(self) -> dict[str, Any]:
        """All but the weights, as JSON."""
        return {"curve": [list(point) for point in self.curve], "step": self.step}

    def measure(self, step: int, loss: Callable[[], Tensor], trained: Mapping[str, nn.Parameter]) -> None:
        """Measure after `step` steps, and keep the weights if they are the best."""
        with torch.no_grad():
            self.curve.append((step, round(float(loss()), 5)))
        smooth = self._smooth()
        if smooth[-1] == min(smooth):
            self.step = step
            self.kept = {
                name: value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
                for name, value in trained.items()
            }

    @property
    def exhausted(self) -> bool:
        """Whether there has been no new best for so long that training should stop."""
        return len([step for step, _ in self.curve if step > self.step]) >= PATIENCE

    def put_back(self, trained: Mapping[str, nn.Parameter]) -> None:
        """Make the best weights the network's."""
        for name, value in self.kept.items():
            trained[name].data.copy_(value)

    def _smooth(self) -> Sequence[float]:
        values = [value for _, value in self.curve]
        recent = (values[max(0, end - SMOOTHED_OVER) : end] for end in range(1, len(values) + 1))
        return [sum(part) / len(part) for part in recent]
