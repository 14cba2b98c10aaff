"""How fast a training goes, from what it reports every few steps."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from model.runtime.progress import Progress
from worker.monitoring.metrics import WorkerMetrics


class StepMetrics:
    """Counts the steps of a training and times them, with what happens between them left out.

    Args:
        step: steps done before.
    """

    def __init__(self, metrics: WorkerMetrics, step: int) -> None:
        self._metrics = metrics
        self._step = step
        self._since = time.perf_counter()

    def report(self, progress: Progress) -> None:
        """A report of the training; other stages than the steps' come before and after them."""
        now = time.perf_counter()
        if progress.stage == "train":
            # A training that begins again from its last checkpoint has done some of its steps before.
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
        """What is done within is no step."""
        began = time.perf_counter()
        yield
        self._since += time.perf_counter() - began
