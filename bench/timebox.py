"""A run that must end in time measures what fits: nothing begins that took longer before than there is time left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class Timebox:
    """Time for a run.

    Attributes:
        minutes: in all, from now on.
        tell: where remarks on what goes on go.
        took: name → seconds of what was measured.
    """

    minutes: float
    tell: Callable[[str], None]
    took: dict[str, float] = field(default_factory=dict)
    _ends: float = field(init=False)

    def __post_init__(self) -> None:
        self._ends = time.monotonic() + 60 * self.minutes

    def allows(self, name: str) -> bool:
        """Whether there is time for it; for what was never measured, whether there is any."""
        fits = time.monotonic() + self.took.get(name, 0.0) < self._ends
        if not fits:
            self.tell(f"no time for: {name}")
        return fits

    @contextmanager
    def timing(self, name: str, remark: str) -> Iterator[None]:
        """Tell of it and remember how long it takes, building and warming included."""
        self.tell(remark)
        began = time.monotonic()
        yield
        self.took[name] = time.monotonic() - began
