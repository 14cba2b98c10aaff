"""What the server tells of adapters and jobs."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

TERMINAL = frozenset({"succeeded", "failed", "cancelled"})


class Progress(BaseModel):
    """Where the work stands; `rate` is in units per second, `eta` in seconds."""

    model_config = ConfigDict(frozen=True, extra="allow")

    stage: str
    completed: int = 0
    total: int = 0
    unit: str = ""
    rate: float | None = None
    eta: float | None = None
    loss: float | None = None


class Resource(BaseModel):
    """An adapter or a job as the server describes it; what is not named here is in `model_extra`."""

    model_config = ConfigDict(frozen=True, extra="allow")

    id: str
    state: str
    progress: Progress | None = None
    counts: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    created_at: str | float | None = None

    @property
    def finished(self) -> bool:
        return self.state in TERMINAL


class Page(BaseModel):
    """Part of a list, newest first; `next_cursor` is the `after` of the next part, None at the end."""

    model_config = ConfigDict(frozen=True)

    data: list[Resource]
    next_cursor: str | None = None
