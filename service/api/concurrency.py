"""Limits concurrent uploads and streams, in total and per API key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from service.api.problems import RETRY_SECONDS, Problem


class ConcurrencyLimit:
    """Limits how many operations run at once. Not thread-safe: for use on the event loop only.

    Args:
        what: name of the operations in the plural, for messages.
        most, most_per_key: operations at once, in total and per API key.
    """

    def __init__(self, what: str, most: int, most_per_key: int) -> None:
        self._what, self._most, self._most_per_key = what, most, most_per_key
        self._taken: Counter[str] = Counter()

    @contextmanager
    def slot(self, key_id: str) -> Iterator[None]:
        """Hold one slot while the context lasts.

        Raises:
            Problem: no slot is free, in total or for this key.
        """
        # Without `close` the server would first receive the rest of the body.
        headers = {"Retry-After": str(RETRY_SECONDS), "Connection": "close"}
        if self._taken[key_id] >= self._most_per_key:
            detail = (
                f"you already have {self._most_per_key} open {self._what}, which is the limit: wait until one has ended"
            )
            raise Problem("too_many_open", detail, headers=headers)
        if self._taken.total() >= self._most:
            raise Problem("unavailable", f"the server has too many open {self._what}: try again later", headers=headers)
        self._taken[key_id] += 1
        try:
            yield
        finally:
            self._taken[key_id] -= 1
            if not self._taken[key_id]:
                del self._taken[key_id]
