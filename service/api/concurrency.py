"""Turns at what takes room for as long as it goes on: so many in all, and of these so many of one key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from service.api.problems import RETRY_SECONDS, Problem


class ConcurrencyLimit:
    """To be taken on the event loop only.

    Args:
        what: in the plural, for people.
        most, most_per_key: at once.
    """

    def __init__(self, what: str, most: int, most_per_key: int) -> None:
        self._what, self._most, self._most_per_key = what, most, most_per_key
        self._taken: Counter[str] = Counter()

    @contextmanager
    def taken(self, key_id: str) -> Iterator[None]:
        """A turn for as long as the context.

        Raises:
            Problem: all turns are taken, or all that the key may have.
        """
        # Closed, or all of a body would come first.
        headers = {"Retry-After": str(RETRY_SECONDS), "Connection": "close"}
        if self._taken[key_id] >= self._most_per_key:
            detail = f"{self._most_per_key} of your {self._what} are open, which is the most: wait until one has ended"
            raise Problem("too_many_open", detail, headers=headers)
        if self._taken.total() >= self._most:
            raise Problem("unavailable", f"too many {self._what} are open: come back later", headers=headers)
        self._taken[key_id] += 1
        try:
            yield
        finally:
            self._taken[key_id] -= 1
            if not self._taken[key_id]:
                del self._taken[key_id]
