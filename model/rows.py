"""Rows of a batch that come out the same, bit for bit, however many there are."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def never_alone(convolve: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """`convolve(x)`; for a single row, beside a copy of itself.

    In single precision PyTorch's CPU convolutions sum one picture in another order than several. They also choose their
    order by the memory format of `x`, so that has to be one.
    """
    device = x.device.type
    if len(x) > 1 or device != "cpu" or x.dtype is not torch.float32 or torch.is_autocast_enabled(device):
        return convolve(x)
    return convolve(torch.cat([x, x]))[:1]
