"""How many pairs are denoised together: as many as the device's memory has room for."""

from __future__ import annotations

from collections.abc import Callable

import torch

SHARE = 0.8
"""Of the free memory that a batch may take; the rest is for what a measurement of two small ones does not show."""


class Room:
    """The number of pairs that fit, halved whenever they did not.

    Attributes:
        pairs: denoised together at most.
        halvings: how often memory ran out.
    """

    def __init__(self, pairs: int) -> None:
        self.pairs = pairs
        self.halvings = 0

    def halve(self, tried: int) -> None:
        """After `tried` pairs, more than one, did not fit."""
        self.pairs = tried // 2
        self.halvings += 1
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()


def measured_room(device: torch.device, run: Callable[[int], object], most: int) -> Room:
    """The room on a CUDA device; on any other, whose memory is not told beforehand, for `most`.

    Args:
        run: does what takes the most memory, for so many pairs.
        most: pairs wanted together.
    """
    if device.type != "cuda" or most == 1:
        return Room(most)
    one, two = (_peak(device, run, pairs) for pairs in (1, 2))
    free, _ = torch.cuda.mem_get_info(device)
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return Room(fitting_pairs(one, two, free + unused, most))


def _peak(device: torch.device, run: Callable[[int], object], pairs: int) -> int:
    """Bytes that a run takes beyond what is taken already."""
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    run(pairs)
    return torch.cuda.max_memory_allocated(device) - before


def fitting_pairs(one: int, two: int, free: int, most: int) -> int:
    """How many pairs fit when the memory they take grows evenly: at least 1, at most `most`.

    Args:
        one, two: bytes that one and two pairs take.
        free: bytes that are free, of which `SHARE` is used.
    """
    each = max(two - one, 1)
    return min(most, max(1, 1 + (int(SHARE * free) - one) // each))
