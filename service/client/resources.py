"""Adapters and jobs as the server describes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

TERMINAL = frozenset({"succeeded", "failed", "cancelled"})


Files = Sequence[Path] | Mapping[str, Path]
"""Files to upload; those of a mapping are sent with its keys as names."""

Pictures = Files | Mapping[str, Files]
"""Files of one defect type, or defect type → files."""


class HeldOut(NamedTuple):
    """Files on which jobs are evaluated; no training sees them.

    Attributes:
        images: photographs of the defect; of several types, type → photographs.
        masks: their masks, likewise; the names are the same except for the suffix.
        normals: photographs without a defect.
    """

    images: Pictures
    masks: Pictures
    normals: Files = ()


class Progress(BaseModel):
    """Progress of the work; `rate` is in units per second, `eta` in seconds."""

    model_config = ConfigDict(frozen=True, extra="allow")

    stage: str
    completed: int = 0
    total: int = 0
    unit: str = ""
    rate: float | None = None
    eta: float | None = None
    loss: float | None = None


class Resource(BaseModel):
    """An adapter or a job; fields that are not declared here are in `model_extra`."""

    model_config = ConfigDict(frozen=True, extra="allow")

    id: str
    state: str
    progress: Progress | None = None
    counts: dict[str, Any] | None = None
    partial: dict[str, Any] | None = None
    verdict: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    created_at: str | float | None = None

    @property
    def finished(self) -> bool:
        return self.state in TERMINAL

    @property
    def sentence(self) -> str:
        """Return what a job's dataset lacks and the verdict of its evaluation in words; empty without both."""
        partial, verdict = self.partial or {}, self.verdict or {}
        lacks = f"Smaller than requested: {partial['detail']}" if partial.get("detail") else ""
        found = verdict.get("sentence") or (f"Not measured: {verdict['detail']}" if verdict.get("detail") else "")
        return " ".join(filter(None, [lacks, found]))


class Page(BaseModel):
    """A page of a list, newest first; `next_cursor` is the `after` of the next page, None at the end."""

    model_config = ConfigDict(frozen=True)

    data: list[Resource]
    next_cursor: str | None = None
