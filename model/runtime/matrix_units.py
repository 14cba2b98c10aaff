"""Finds out whether bf16 is the faster precision of a device, by multiplying.

Processors with AMX, or with fast AVX-512 instructions for bf16, multiply such matrices several times as fast, as GPUs
do. Others convert: on a Xeon without AMX fp32 was twice as fast, and a request in bf16 took 1.3 times as long. Flags do
not tell: on an EPYC without AMX bf16 products are 4.5 times as fast, a pass of `mini`'s U-Net takes 0.6 of the time.
"""

from __future__ import annotations

import functools
import time

import torch

SIDE = 512
"""Side of the square matrices that are multiplied."""

ADVANTAGE = 1.5
"""bf16 must multiply so many times as fast as fp32: what is no product is slower in it, and timings scatter."""

ROUNDS = 6
"""Products of either kind; the fastest counts."""


@functools.cache
def faster_precision(device: torch.device) -> torch.dtype:
    """Return bfloat16 on GPUs, and on CPUs that multiply clearly faster in it, measured once in some milliseconds."""
    if device.type != "cpu":
        return torch.bfloat16
    faster = _seconds(torch.float32) / _seconds(torch.bfloat16) >= ADVANTAGE
    return torch.bfloat16 if faster else torch.float32


def fastest_precision(device: torch.device, recommended: str) -> str:
    """Return the recommended precision, or fp32 where bf16 is recommended for speed that this device does not have."""
    slow = recommended == "bf16" and faster_precision(device) is torch.float32
    return "fp32" if slow else recommended


def _seconds(precision: torch.dtype) -> float:
    a = torch.ones((SIDE, SIDE), dtype=precision)
    taken = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        torch.mm(a, a)
        taken.append(time.perf_counter() - began)
    return min(taken)
