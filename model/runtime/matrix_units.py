"""Finds out whether bf16 is the faster precision of a device.

Processors with AMX have units for products of bf16 matrices, as GPUs have. Others convert: on a Xeon without AMX, a
request in bf16 took 1.3 times as long as one in fp32.
"""

from __future__ import annotations

import functools
from pathlib import Path

import torch

CPU = Path("/proc/cpuinfo")


@functools.lru_cache
def has_amx(cpuinfo: Path = CPU) -> bool:
    """Return whether the processor multiplies bf16 matrices itself; False where that cannot be told."""
    try:
        return "amx_bf16" in cpuinfo.read_text(encoding="ascii", errors="replace").split()
    except OSError:
        return False


def fastest_precision(device: torch.device, recommended: str, cpuinfo: Path = CPU) -> str:
    """Return the recommended precision, or fp32 where bf16 is recommended for speed that this device does not have."""
    return "fp32" if recommended == "bf16" and device.type == "cpu" and not has_amx(cpuinfo) else recommended
