"""What a store refuses to do because of the state that the records are in."""

from __future__ import annotations

from collections.abc import Sequence

from service.core.record import State


class QuotaExceeded(Exception):  # noqa: N818  says what happened, as the errors of service.core.errors do
    """An API key has used up a quota; `quota` is "active" or "all" (records), "stored_bytes" or "work"."""

    def __init__(self, quota: str, used: int, limit: int) -> None:
        self.quota, self.used, self.limit = quota, used, limit
        super().__init__(f"quota {quota} of this API key: {used} of {limit} in use")


class TooFast(Exception):  # noqa: N818  as above
    """An API key creates more records per minute than it may; the next is accepted after `wait` seconds."""

    def __init__(self, per_minute: int, wait: float) -> None:
        self.per_minute, self.wait = per_minute, wait
        super().__init__(f"more than {per_minute} per minute")


class AdapterNotReady(Exception):  # noqa: N818  as above
    """The adapter that a job needs does not belong to the API key (`state` None), or has not succeeded."""

    def __init__(self, state: State | None) -> None:
        self.state = state
        super().__init__(f"the adapter is {state or 'missing'}")


class CannotFollow(Exception):  # noqa: N818  as above
    """The job to go on after is gone (`follower` empty), or another one goes on after it, which is in `state`."""

    def __init__(self, follower: str = "", state: State | None = None) -> None:
        self.follower, self.state = follower, state
        super().__init__(f"followed by {follower}, which is {state}" if follower else "gone")


class AdapterInUse(Exception):  # noqa: N818  as above
    """Unfinished jobs need the adapter."""

    def __init__(self, jobs: Sequence[str]) -> None:
        self.jobs = sorted(jobs)
        super().__init__(f"needed by {', '.join(self.jobs)}")


class IdempotencyConflict(Exception):  # noqa: N818  as above
    """The idempotency key was used before, for another request."""
