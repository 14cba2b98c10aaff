"""Rows of a batch that come out the same, bit for bit, however many there are.

PyTorch's CPU convolutions sum in an order that depends on the number of pictures, on the memory format, and in ways of
their own on the number of threads. What is below was found by comparing; on GPUs batches are computed as they come.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from model.runtime import switches
from model.runtime.switches import Switch


def pad_single(convolve: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Compute `convolve(x)` of one layer; in single precision a single row goes beside a copy of itself.

    Args:
        x: always in one memory format.
    """
    if len(x) > 1 or x.device.type != "cpu" or x.dtype is not torch.float32:
        return convolve(x)
    return convolve(torch.cat([x, x]))[:1] if switches.on(Switch.FIXED_BATCHES) else convolve(x)


FIXED_BATCH = 4
"""Rows that a network sees at once on CPUs: with fewer it takes longer per row, with more hardly less."""


def fixed_batches(network: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Compute `network(x)` of a convolutional network: on CPUs always four rows at a time, the last ones repeated.

    Args:
        x: always in one memory format.
    """
    if x.device.type != "cpu" or not switches.on(Switch.FIXED_BATCHES):
        return network(x)
    # Concatenating keeps the memory format.
    parts = [
        network(torch.cat([rows] * FIXED_BATCH)[:FIXED_BATCH] if len(rows) < FIXED_BATCH else rows)
        for rows in x.split(FIXED_BATCH)
    ]
    return torch.cat(parts)[: len(x)]
