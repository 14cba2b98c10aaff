"""Limits the time of a run: a measurement starts only if it took less time before than is left.

A measurement without an earlier time is assumed to take as long as what it is compared with.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class Timebox:
    """The time limit of a run.

    Attributes:
        minutes: total time, from now on.
        report: called with progress messages.
        took: name → seconds of a finished measurement.
    """

    minutes: float
    report: Callable[[str], None]
    took: dict[str, float] = field(default_factory=dict)
    _ends: float = field(init=False)

    def __post_init__(self) -> None:
        self._ends = time.monotonic() + 60 * self.minutes

    def left(self) -> float:
        """Return the seconds left; 0 when the time is over."""
        return max(0.0, self._ends - time.monotonic())

    def allows(self, name: str, *like: str) -> bool:
        """Return whether there is time for a measurement.

        Args:
            like: measurements of similar length, used if this one has no earlier time; the first with a time counts.
                Without any, the measurement is allowed.
        """
        fits = next((self.took[each] for each in (name, *like) if each in self.took), 0.0) < self.left()
        if not fits:
            self.report(f"no time for: {name}")
        return fits

    @contextmanager
    def timing(self, name: str, message: str) -> Iterator[None]:
        """Report a measurement and record how long it takes, building and warming included."""
        self.report(message)
        began = time.monotonic()
        yield
        self.took[name] = time.monotonic() - began
