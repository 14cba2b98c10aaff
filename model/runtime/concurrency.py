"""Work done by other threads while the calling thread computes the next results."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from contextvars import copy_context
from typing import TypeVar

from model.runtime import switches
from model.runtime.progress import Progress
from model.runtime.switches import Switch

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def _never(_: int) -> bool:
    return False


def overlapped(
    items: Generator[Progress | _Item, None, None],
    work: Callable[[_Item], _Result],
    *,
    ahead: int,
    enough: Callable[[int], bool] = _never,
    beside: bool = True,
) -> Generator[Progress | _Result, None, None]:
    """Yield `work(item)` for every item, in their order, and their progress.

    The work is done in one other thread, item after item. Results are yielded as soon as they are there and the next
    item or progress comes. Nothing is left running once this has ended, whether by itself, by an error on either side,
    which is raised here, or because the caller stops asking.

    Args:
        items: computed in the caller's thread, and closed in the end.
        work: must not depend on what the caller's thread does at the same time.
        ahead: items that may wait for their work while the next is computed.
        enough: asked with the number of waiting items whether their results are to be waited for first, as no further
            item may be needed.
        beside: False to do the work between the items instead, in the calling thread: where both need the same cores.
    """
    if not beside or not switches.on(Switch.OVERLAPPED):
        with closing(items):
            for item in items:
                yield item if isinstance(item, Progress) else work(item)
        return
    waiting: deque[Future[_Result]] = deque()
    context = copy_context()
    with closing(items), ThreadPoolExecutor(1, "overlap") as pool:
        try:
            for item in items:
                if isinstance(item, Progress):
                    yield item
                else:
                    waiting.append(pool.submit(context.run, work, item))
                while waiting and (waiting[0].done() or len(waiting) > ahead or enough(len(waiting))):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def threaded(items: Iterable[_Item], work: Callable[[_Item], _Result], *, threads: int) -> Iterator[_Result]:
    """Yield `work(item)` for every item, in their order, done by several threads.

    Args:
        items: taken by the caller's thread, `threads` of them ahead of what is yielded.
        work: releases the interpreter for most of its time.
    """
    waiting: deque[Future[_Result]] = deque()
    with ThreadPoolExecutor(threads, "work") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
