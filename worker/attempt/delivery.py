"""Describes the delivery of the message that started an attempt."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Delivery:
    """Delivery of a message, which stays unacknowledged until the work is done.

    Attributes:
        tag: identifies the delivery, to renew it; None if the broker sent none.
        again: whether it was delivered before, to a worker that died or stalled.
    """

    tag: str | None
    again: bool
