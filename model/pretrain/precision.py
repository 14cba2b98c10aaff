"""Finds the precision in which a device multiplies faster; half precision is slower on CPUs without AMX."""

from __future__ import annotations

import functools
import time
from contextlib import AbstractContextManager, nullcontext

import torch

SIDE = 512
"""Side of the square matrices that are multiplied to find out."""


@functools.cache
def faster_precision(device: torch.device) -> torch.dtype:
    """Return bfloat16 on GPUs; on CPUs the faster of bfloat16 and float32, measured in some milliseconds."""
    if device.type != "cpu":
        return torch.bfloat16
    return min((torch.bfloat16, torch.float32), key=_seconds)


def computing_in(precision: torch.dtype, device: torch.device) -> AbstractContextManager[object]:
    """Autocast to `precision`; does nothing for float32, the precision of the weights."""
    return nullcontext() if precision is torch.float32 else torch.autocast(device.type, precision)


def _seconds(precision: torch.dtype) -> float:
    a = torch.ones((SIDE, SIDE), dtype=precision)
    taken = []
    for _ in range(6):
        began = time.perf_counter()
        torch.mm(a, a)
        taken.append(time.perf_counter() - began)
    return min(taken)
