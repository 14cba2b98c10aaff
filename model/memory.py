"""The most that tensors took on a CUDA device, over measurements that make its allocator count anew.

Devices are given with their index.
"""

from __future__ import annotations

import torch

_earlier: dict[torch.device, int] = {}
"""What they took before the allocator's own count began."""


def most_taken(device: torch.device) -> int:
    """Bytes at most since `forget_most`."""
    return max(_earlier.get(device, 0), torch.cuda.max_memory_allocated(device))


def count_anew(device: torch.device) -> None:
    """Let the allocator's own count begin at what is taken now; `most_taken` goes on."""
    _earlier[device] = most_taken(device)
    torch.cuda.reset_peak_memory_stats(device)


def forget_most(device: torch.device) -> None:
    """The most is what is taken from here on."""
    _earlier.pop(device, None)
    torch.cuda.reset_peak_memory_stats(device)
