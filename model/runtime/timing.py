"""Stages of long work that can be timed: `with stage("denoise"):`. Without an observer they cost nothing.

Work on a GPU goes on after its call has returned, so with an observer the end of a stage waits for it; not in other
threads than the main one, which would wait for what that one has given the GPU to do.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

Observer = Callable[[str, float], None]
"""Called with the name of a stage and the seconds it took."""

_NOTHING = nullcontext()
_observer: Observer | None = None


def observe_stages(observer: Observer | None) -> None:
    """Call `observer` at the end of every stage of this process; None ends that."""
    global _observer  # noqa: PLW0603  stages lie deep in the computation, where nobody could hand an observer on
    _observer = observer


def stage(name: str) -> AbstractContextManager[None]:
    """What is done within is a stage of that name."""
    return _NOTHING if _observer is None else _timed(name, _observer)


@contextmanager
def _timed(name: str, observer: Observer) -> Iterator[None]:
    began = time.perf_counter()
    yield
    if torch.cuda.is_initialized() and threading.current_thread() is threading.main_thread():
        torch.cuda.synchronize()
    observer(name, time.perf_counter() - began)
