"""A run that must end in time measures what fits: nothing begins that took longer before than there is time left.

What was never measured is taken to last as long as what it is compared with.
"""

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

    def left(self) -> float:
        """Seconds; none when it is over."""
        return max(0.0, self._ends - time.monotonic())

    def allows(self, name: str, *like: str) -> bool:
        """Whether there is time for it.

        Args:
            like: what takes about as long, for what was never measured; the first that was counts, and where none was,
                any time will do.
        """
        fits = next((self.took[each] for each in (name, *like) if each in self.took), 0.0) < self.left()
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
