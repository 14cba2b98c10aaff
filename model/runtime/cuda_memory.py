"""Memory of a CUDA device: how many pairs it has room for, and the most that was taken.

The allocator keeps one peak. Measuring a batch resets it, so earlier peaks are kept here. Devices are given with their
index.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from model.runtime import switches
from model.runtime.switches import Switch

_Result = TypeVar("_Result")

SHARE = 0.8
"""Of the free memory that a batch may take; the rest is for what a measurement of two small ones does not show."""


class BatchBudget:
    """The number of pairs that fit, halved whenever they did not.

    Attributes:
        pairs: denoised together at most.
        halvings: how often memory ran out.
    """

    def __init__(self, pairs: int) -> None:
        self.pairs = pairs
        self.halvings = 0

    def share(self, batch: int) -> int:
        """How many pairs of a batch to denoise together: parts of one size, unless that would waste half the room."""
        even = max(part for part in range(1, min(self.pairs, batch) + 1) if batch % part == 0)
        return even if 2 * even > self.pairs or even == batch else self.pairs

    def run(self, work: Callable[[int], _Result]) -> _Result:
        """Do a work that takes at most so many pairs at once, with half as many as often as they do not fit.

        Raises:
            torch.OutOfMemoryError: not even one fits.
        """
        while True:
            try:
                return work(self.pairs)
            except torch.OutOfMemoryError:
                if self.pairs == 1:
                    raise
            self.halve(self.pairs)  # outside of the handler, so that the error no longer keeps tensors alive

    def halve(self, tried: int) -> None:
        """After `tried` pairs, more than one, did not fit."""
        self.pairs = tried // 2
        self.halvings += 1
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()


def measured_budget(
    device: torch.device, works: Sequence[Callable[[int], object]], most: int, *, kept: int = 0
) -> BatchBudget:
    """Measure the room on a CUDA device; any other does not say how much memory is free, and is taken to fit `most`.

    Args:
        works: each does what takes the most memory, for the given number of pairs. What one takes may be kept while
            another is done.
        most: pairs wanted together.
        kept: bytes that will be taken later, and must stay free.
    """
    if device.type != "cuda" or most == 1 or not switches.on(Switch.MEASURED_MEMORY):
        return BatchBudget(most)

    def free() -> int:
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused - kept

    budget = BatchBudget(budget_for(lambda pairs: sum(_peak(device, work, pairs) for work in works), free, most))
    torch.cuda.empty_cache()
    return budget


def budget_for(measure: Callable[[int], int], free: Callable[[], int], most: int) -> int:
    """Find how many pairs fit, from the memory that one and two take.

    Args:
        measure: returns the bytes that a number of pairs takes.
        free: returns the bytes that are free.

    Raises:
        torch.OutOfMemoryError: there is no room for a single pair.
    """
    measure(1)  # what libraries take once for all is taken then
    one = measure(1)
    try:
        two = measure(2)
    except torch.OutOfMemoryError:
        return 1
    return fitting_pairs(one, two, free(), most)


def _peak(device: torch.device, work: Callable[[int], object], pairs: int) -> int:
    """Bytes that a work takes beyond what is taken already."""
    before = torch.cuda.memory_allocated(device)
    count_anew(device)
    work(pairs)
    return torch.cuda.max_memory_allocated(device) - before


def fitting_pairs(one: int, two: int, free: int, most: int) -> int:
    """How many pairs fit when the memory they take grows evenly: at least 1, at most `most`.

    Args:
        one, two: bytes that one and two pairs take.
        free: bytes that are free, of which `SHARE` is used.
    """
    each = max(two - one, 1)
    return min(most, max(1, 1 + (int(SHARE * free) - one) // each))


_earlier: dict[torch.device, int] = {}
"""What they took before the allocator's own count began."""


def most_taken(device: torch.device) -> int:
    """Return the most bytes taken since `forget_most`."""
    return max(_earlier.get(device, 0), torch.cuda.max_memory_allocated(device))


def count_anew(device: torch.device) -> None:
    """Restart the allocator's own count at what is taken now; `most_taken` still knows the earlier peak."""
    _earlier[device] = most_taken(device)
    torch.cuda.reset_peak_memory_stats(device)


def forget_most(device: torch.device) -> None:
    """Restart `most_taken` at what is taken now."""
    _earlier.pop(device, None)
    torch.cuda.reset_peak_memory_stats(device)
