"""What the machine can do and what work takes of it: products per second, time, memory, floating-point operations."""

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

SIDE = {"cpu": 2048, "cuda": 8192}
"""Of the square matrices whose product is the measured peak."""

PRICE = {"cpu": 0.1, "cuda": 4.0}
"""US dollars per hour, about what clouds ask for two virtual cores, and for one H200, without a contract."""


@dataclass(frozen=True, slots=True)
class Peak:
    """Largest rate of products that was measured, operations per second."""

    fp32: float
    bf16: float


def measure_peak(device: str) -> Peak:
    """Multiply large square matrices in either precision; a sum and a product count as two operations."""
    side = SIDE[device]
    rates = []
    for dtype in (torch.float32, torch.bfloat16):
        a, b = (torch.randn((side, side), device=device, dtype=dtype) for _ in range(2))
        rates.append(2 * side**3 / median(timed(device, lambda a=a, b=b: a @ b, 5)))  # type: ignore[misc]
    return Peak(*rates)


def timed(device: str, work: Callable[[], Any], times: int, warm_up: int = 1) -> list[float]:
    """Seconds of each of some repetitions, after others that do not count."""
    for _ in range(warm_up):
        work()
    return [clocked(device, work) for _ in range(times)]


def clocked(device: str, work: Callable[[], Any]) -> float:
    """Seconds until the device has done the work."""
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
    """Bytes at most, set when the work is done."""

    peak: int = 0


@contextmanager
def peak_memory(device: str) -> Iterator[Memory]:
    """The most memory in use within: on a GPU by its allocator, else the process' resident set, libraries and all.

    The kernel forgets its high-water mark when a 5 is written to `clear_refs`, see proc(5).
    """
    memory = Memory()
    if device == "cuda":
        torch.cuda.empty_cache()
        forget_most(_current())
    else:
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
    """Floating-point operations of matrix products, convolutions and attentions, backward passes included."""
    # PyTorch counts the attention kernels of GPUs alone, and no product that is added in place.
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
    """Convolutions in fp32 without tensor cores' shortened mantissas; cuDNN itself, which `flags` turns off, stays."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def device_name(device: str) -> str:
    """What a GPU is called; empty on a CPU, whose name stands with the machine's."""
    return torch.cuda.get_device_name() if device == "cuda" else ""
