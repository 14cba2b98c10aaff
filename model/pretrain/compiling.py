"""Compiles a training objective, if that works in time and makes it faster."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from torch import Tensor

Objective = Callable[..., Tensor]
"""Tensors and plain values → scalar loss."""

TRIALS = 3
"""Number of forward and backward passes to time; the fastest counts."""


def faster(
    objective: Objective,
    example: tuple[Any, ...],
    seconds: float,
    backend: str | Callable[..., Any] = "inductor",
) -> tuple[Objective, str]:
    """Compile the objective, or return it unchanged if compilation fails, takes too long, or gains nothing.

    The caller must clear the gradients that the trials leave on parameters.

    Args:
        example: arguments with the shapes, types and plain values of all later calls.
        seconds: limit for compilation; 0 turns it off. Only the main thread can interrupt compilation, so other threads
            do not compile.
        backend: backend of `torch.compile`.

    Returns:
        The function to call, and a line that explains the choice.
    """
    if seconds <= 0 or threading.current_thread() is not threading.main_thread():
        return objective, ""
    compiled = torch.compile(objective, backend=backend, dynamic=False, fullgraph=True)
    before = _fastest(objective, example)
    began = time.monotonic()
    try:
        with _at_most(seconds):
            compiled(*example).backward()
    # Dynamo, Inductor and the C compiler each raise errors of many kinds.
    except Exception as error:  # noqa: BLE001
        return objective, f"not compiled: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
    taken = time.monotonic() - began
    ratio = before / _fastest(compiled, example)
    note = f"compiled in {taken:.0f} s, {ratio:.2f} times as fast"
    return (compiled, note) if ratio > 1 else (objective, f"{note}: not used")


def _fastest(objective: Objective, example: tuple[Any, ...]) -> float:
    """Measure the seconds of a forward and backward pass."""
    taken = []
    for _ in range(TRIALS):
        began = time.perf_counter()
        loss = objective(*example)
        loss.backward()
        loss.item()  # waits for a GPU
        taken.append(time.perf_counter() - began)
    return min(taken)


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raise `TimeoutError` in the block when the time is over."""

    def over(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"it takes longer than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
