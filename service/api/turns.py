"""Lets API keys take turns at something that only a few may do at once."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """Hands out places: waiting keys are served in turn, and the requests of one key in the order of their arrival.

    Not thread-safe: for use on one event loop.

    Args:
        places: how many requests hold a place at once.
    """

    def __init__(self, places: int) -> None:
        self._free = places
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @asynccontextmanager
    async def turn(self, key_id: str) -> AsyncIterator[None]:
        """Wait for a place, and hold it while the context lasts."""
        if self._free:
            self._free -= 1
        else:
            await self._wait(key_id)
        try:
            yield
        finally:
            self._pass_on()

    async def _wait(self, key_id: str) -> None:
        called: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key_id, deque()).append(called)
        try:
            await called
        except asyncio.CancelledError:
            if called.done() and not called.cancelled():
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        """Call the first request of the key that waits for its turn longest; those that gave up are left out."""
        while self._waiting:
            key_id, requests = self._waiting.popitem(last=False)
            while requests:
                called = requests.popleft()
                if not called.done():
                    if requests:
                        self._waiting[key_id] = requests
                    called.set_result(None)
                    return
        self._free += 1
