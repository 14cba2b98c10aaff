"""Measures the speed of a training, from its reports every few steps."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from model.runtime.progress import Progress
from worker.monitoring.metrics import WorkerMetrics


class StepMetrics:
    """Counts and times the steps of a training, without what happens between them.

    Args:
        step: number of steps done before.
    """

    def __init__(self, metrics: WorkerMetrics, step: int) -> None:
        self._metrics = metrics
        self._step = step
        self._since = time.perf_counter()

    def report(self, progress: Progress) -> None:
        """Count and time the steps since the last report; reports of other stages only restart the clock."""
        now = time.perf_counter()
        if progress.stage == "train":
            # A training that starts again from its last checkpoint repeats some steps.
            steps = progress.completed - self._step
            for _ in range(steps):
                self._metrics.training_steps.inc()
                self._metrics.training_step.observe((now - self._since) / steps)
            if progress.loss is not None:
                self._metrics.training_loss.set(progress.loss)
            self._step = progress.completed
        self._since = now

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time within out of the steps' time."""
        began = time.perf_counter()
        yield
        self._since += time.perf_counter() - began
