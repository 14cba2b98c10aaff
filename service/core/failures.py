"""Why accepted work may fail: the codes in `error.code` of an adapter or a job."""

from __future__ import annotations

FAILURES: dict[str, str] = {
    "unusable_input": "The pictures or options cannot be used as they are",
    "diverged": "The training diverged: its loss was no finite number any more",
    "took_too_long": "It ran longer than this server works on one record",
    "attempts_exhausted": "Every start ended without progress, so it is not tried again",
    "internal_error": "A fault of this server, which was logged",
}
"""Code → what has happened."""
