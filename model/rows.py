"""Rows of a batch that come out the same, bit for bit, however many there are.

PyTorch's CPU convolutions sum in an order that depends on the number of pictures, on the memory format, and in ways of
their own on the number of threads. What is below was found by comparing; on GPUs batches are computed as they come.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def never_alone(convolve: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """`convolve(x)` of one layer; in single precision a single row is computed beside a copy of itself.

    Args:
        x: always in one memory format.
    """
    if len(x) > 1 or x.device.type != "cpu" or x.dtype is not torch.float32:
        return convolve(x)
    return convolve(torch.cat([x, x]))[:1]


def in_twos(network: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """`network(x)` of a whole convolutional network: on CPUs two rows at a time, the last beside a copy of itself.

    That takes about a seventh more time than all at once.

    Args:
        x: always in one memory format.
    """
    if x.device.type != "cpu":
        return network(x)
    parts = [network(two if len(two) == 2 else torch.cat([two, two])) for two in x.split(2)]
    return torch.cat(parts)[: len(x)]
