"""How the message came that an attempt began with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message that the broker takes for unacknowledged until the work is done.

    Attributes:
        tag: by which its delivery is renewed; None where the broker has told none.
        again: whether it was delivered before, to a worker that has died or stalled.
    """

    tag: str | None
    again: bool
