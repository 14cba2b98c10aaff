"""Progress of long work as values: the library yields them, the caller decides how to show or store them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Progress:
    """One report of a long piece of work.

    Attributes:
        stage: what is being done ("encode", "train", "sample" …).
        completed: units done, resumed ones included.
        total: units to do in all.
        unit: what is counted ("steps", "pairs" …).
        rate: units per second in this run, 0 before the first.
        eta: seconds left at that rate, None before the first.
        loss: the current (smoothed) training loss, where there is one.
        note: a short message worth showing once.
    """

    stage: str
    completed: int
    total: int
    unit: str
    rate: float = 0.0
    eta: float | None = None
    loss: float | None = None
    note: str = ""


@dataclass(slots=True)
class Meter:
    """Turns counts into `Progress`, timing from its creation; units done before (`resumed`) do not count."""

    stage: str
    total: int
    unit: str
    resumed: int = 0
    started: float = field(default_factory=time.monotonic)

    def report(self, completed: int, *, share: float = 0.0, loss: float | None = None, note: str = "") -> Progress:
        """Progress after `completed` units, and of the next one this share (0–1), for which only the time is told."""
        elapsed = time.monotonic() - self.started
        rate = (completed + share - self.resumed) / elapsed if elapsed > 0 else 0.0
        eta = (self.total - completed - share) / rate if rate > 0 else None
        return Progress(self.stage, completed, self.total, self.unit, rate, eta, loss, note)
