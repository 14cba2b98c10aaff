"""Measures the machine and the work on it: products per second, time, memory, floating-point operations."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, bmm_flop, sdpa_flop_count

from model.runtime.cuda_memory import forget_most, most_taken
from model.runtime.malloc import give_back_freed_memory

SIDE = {"cpu": 2048, "cuda": 8192}
"""Side of the square matrices that the peak is measured with."""

PRICE = {"cpu": 0.1, "cuda": 4.0}
"""US dollars per hour: approximate on-demand cloud prices of two virtual cores, and of one H200."""


@dataclass(frozen=True, slots=True)
class Peak:
    """Largest measured rate of matrix products, operations per second."""

    fp32: float
    bf16: float


def measure_peak(device: str) -> Peak:
    """Multiply large square matrices in both precisions; a sum and a product count as two operations."""
    side = SIDE[device]
    rates = []
    for dtype in (torch.float32, torch.bfloat16):
        a, b = (torch.randn((side, side), device=device, dtype=dtype) for _ in range(2))
        rates.append(2 * side**3 / median(timed(device, lambda a=a, b=b: a @ b, 5)))  # type: ignore[misc]
    return Peak(*rates)


def timed(device: str, work: Callable[[], Any], times: int, warm_up: int = 1) -> list[float]:
    """Measure the seconds of each repetition, after warm-up repetitions."""
    for _ in range(warm_up):
        work()
    return [clocked(device, work) for _ in range(times)]


def clocked(device: str, work: Callable[[], Any]) -> float:
    """Measure the seconds until the device has done the work."""
    _wait(device)
    began = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - began


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


@dataclass(slots=True)
class Memory:
    """Peak of used bytes, set when the work is done."""

    peak: int = 0


@contextmanager
def peak_memory(device: str) -> Iterator[Memory]:
    """Measure the peak memory in the block: of the allocator on a GPU, otherwise of the process' resident set.

    The kernel forgets its high-water mark when a 5 is written to `clear_refs`, see proc(5). What was freed before is
    given back first: work that takes such memory again would seem to need none.
    """
    memory = Memory()
    if device == "cuda":
        torch.cuda.empty_cache()
        forget_most(_current())
    else:
        give_back_freed_memory()
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    yield memory
    if device == "cuda":
        memory.peak = most_taken(_current())
    else:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        memory.peak = 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def _current() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device())


def count_operations(work: Callable[[], Any]) -> int:
    """Count floating-point operations of matrix products, convolutions and attentions, backward passes included."""
    # PyTorch counts only the attention kernels of GPUs, and no product that is added in place.
    missing = {
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_operations,  # noqa: SLF001
        torch.ops.aten.baddbmm_: _added_product_operations,
    }
    with FlopCounterMode(display=False, custom_mapping=missing) as counter:
        work()
    return int(counter.get_total_flops())


def _attention_operations(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def _added_product_operations(added: Any, a: Any, b: Any, **kwargs: Any) -> int:
    return int(bmm_flop(a, b))


@contextmanager
def full_mantissas() -> Iterator[None]:
    """Compute fp32 convolutions without TF32's short mantissas; cuDNN, which `flags` would turn off, stays on."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def device_name(device: str) -> str:
    """Return the name of a GPU; empty for a CPU, whose name is part of the machine's."""
    return torch.cuda.get_device_name() if device == "cuda" else ""
