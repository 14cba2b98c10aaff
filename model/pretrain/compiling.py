"""A training objective, compiled where that works in time and makes it faster."""

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
"""Passes forwards and backwards of which the quickest counts."""


def faster(
    objective: Objective,
    example: tuple[Any, ...],
    seconds: float,
    backend: str | Callable[..., Any] = "inductor",
) -> tuple[Objective, str]:
    """The objective compiled, or as it is written where compiling fails, takes too long, or gains nothing.

    Gradients that the trials leave on parameters are the caller's to clear.

    Args:
        example: arguments of a call like all there will be, in shapes, types and plain values.
        seconds: compiling may take; 0 leaves the objective as it is written. Only a program's main thread can stop it,
            so elsewhere nothing is compiled.
        backend: of `torch.compile`.

    Returns:
        What to call, and a line that says how it was chosen.
    """
    if seconds <= 0 or threading.current_thread() is not threading.main_thread():
        return objective, ""
    compiled = torch.compile(objective, backend=backend, dynamic=False, fullgraph=True)
    before = _fastest(objective, example)
    began = time.monotonic()
    try:
        with _at_most(seconds):
            compiled(*example).backward()
    # Whatever Dynamo, Inductor and the compilers that it calls raise.
    except Exception as error:  # noqa: BLE001
        return objective, f"not compiled: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
    taken = time.monotonic() - began
    ratio = before / _fastest(compiled, example)
    told = f"compiled in {taken:.0f} s, {ratio:.2f} times as fast"
    return (compiled, told) if ratio > 1 else (objective, f"{told}: not used")


def _fastest(objective: Objective, example: tuple[Any, ...]) -> float:
    """Seconds of a pass forwards and backwards."""
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
    """Raise `TimeoutError` within when the time is over."""

    def over(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"it takes longer than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
