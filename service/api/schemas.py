"""The answers' shapes, as the OpenAPI document shows them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.core.record import State


class _Schema(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ProblemEntry(BaseModel):
    """One mistake."""

    detail: str
    pointer: str | None = Field(default=None, description="Where in the body (RFC 6901), a file by its position.")
    files: list[str] | None = Field(default=None, description="Pointers to all files that the mistake concerns.")
    parameter: str | None = Field(default=None, description="Which query, path or header parameter.")
    place: Literal["query", "path", "header", "cookie"] | None = Field(
        default=None, alias="in", description="Where the parameter is."
    )


class ProblemDocument(BaseModel):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str = Field(description="For programs; does not change.")
    request_id: str = Field(description="As in the `X-Request-Id` of the answer, and in the logs.")
    errors: list[ProblemEntry] | None = None


class Progress(_Schema):
    """How far the running stage has come."""

    stage: str
    completed: int
    total: int | None = None
    unit: str | None = None
    rate: float | None = Field(default=None, description="Units per second.")
    loss: float | None = Field(default=None, description="Of a training, smoothed.")
    eta: float | None = Field(default=None, description="Seconds until the stage is complete.")


class Counts(_Schema):
    """Of a job's candidates."""

    attempts: int = Field(description="Candidates that were made and judged.")
    accepted: int
    rejected: dict[str, int] = Field(description="By reason.")


class Sample(_Schema):
    """A sheet of sample pairs."""

    step: int = Field(description="The training step whose weights made it.")
    link: str


class Dataset(_Schema):
    """The zip of a job."""

    bytes: int
    sha256: str


class Failure(_Schema):
    """Why it failed."""

    code: str
    detail: str
    problems: list[str] = []


class Resource(_Schema):
    """What adapters and jobs have in common."""

    id: str
    state: State
    created_at: datetime
    timestamps: dict[State, datetime] = Field(description="When each state was entered last.")
    attempt: int = Field(description="How often a worker has begun it.")
    queue_position: int | None = Field(description="How many of its kind come before it; null unless queued.")
    progress: Progress | None
    error: Failure | None
    notes: list[str] = Field(description="What was converted or looks odd.")
    stored_bytes: int
    links: dict[str, str]


class Adapter(Resource):
    """A training on a few pairs, and what came of it."""

    name: str
    request: dict[str, Any] = Field(description="With all defaults filled in as far as they are known.")
    loss: list[tuple[int, float]] = Field(description="Points of the loss curve: step and loss.")
    samples: list[Sample]
    card: dict[str, Any] | None = Field(description="The adapter's card, once it is trained.")


class Job(Resource):
    """A generation of pairs with an adapter."""

    adapter_id: str
    request: dict[str, Any] = Field(description="With all defaults filled in as far as they are known, always a seed.")
    counts: Counts | None
    dataset: Dataset | None = Field(description="Size and hash of the dataset, once it is complete.")


class AdapterList(_Schema):
    """A page, newest first."""

    data: list[Adapter]
    next_cursor: str | None = Field(description="`after` of the next page; null on the last one.")


class JobList(_Schema):
    """A page, newest first."""

    data: list[Job]
    next_cursor: str | None = Field(description="`after` of the next page; null on the last one.")


class ArtifactFile(_Schema):
    """A file of a trained adapter."""

    name: str
    bytes: int
    url: str = Field(description="A link that works for a while without a key.")


class Artifact(_Schema):
    """A trained adapter: put these files into one folder to use it with the library."""

    files: list[ArtifactFile]


class Readiness(_Schema):
    """Whether each thing that is needed is there."""

    ready: bool
    redis: bool
    storage: bool
    workers: int = Field(description="Workers heard of in the last half minute.")
