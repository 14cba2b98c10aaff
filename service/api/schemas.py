"""Schemas of the responses, for the OpenAPI document."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel

from service.core.failures import FAILURES
from service.core.record import State


class _Schema(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ProblemEntry(BaseModel):
    """One mistake."""

    detail: str = Field(description="What is wrong, and what would be right.")
    pointer: str | None = Field(default=None, description="Place in the body (RFC 6901); files are numbered from 0.")
    files: list[str] | None = Field(default=None, description="Pointers to all files that the mistake concerns.")
    parameter: str | None = Field(default=None, description="Name of the query, path or header parameter.")
    place: Literal["query", "path", "header", "cookie"] | None = Field(
        default=None, alias="in", description="Where the parameter is."
    )


class Problem(BaseModel):
    """A problem document (RFC 9457)."""

    type: str = Field(description="Identifier of the kind of problem.")
    title: str = Field(description="The kind of problem in words.")
    status: int = Field(description="The status of the response.")
    detail: str = Field(description="All that is wrong, in words.")
    instance: str = Field(description="Path of the request.")
    code: str = Field(description="Stable identifier of the kind of problem, for programs; `/docs` lists all.")
    request_id: str = Field(description="The same as `X-Request-Id` of the response and in the logs.")
    errors: list[ProblemEntry] | None = Field(default=None, description="One entry for each mistake.")


class Progress(_Schema):
    """Progress of the running stage."""

    stage: str = Field(description="What is being done.")
    completed: int = Field(description="Units done.")
    total: int | None = Field(default=None, description="Units to do in all.")
    unit: str | None = Field(default=None, description="What is counted.")
    rate: float | None = Field(default=None, description="Units per second.")
    loss: float | None = Field(default=None, description="Smoothed training loss.")
    eta: float | None = Field(default=None, description="Seconds until the stage is complete.")


class Counts(_Schema):
    """Numbers of a job's candidates."""

    attempts: int = Field(description="Candidates generated and checked.")
    accepted: int = Field(description="Candidates that are pairs of the dataset.")
    rejected: dict[str, int] = Field(description="Number of rejected candidates by reason.")
    skipped: int | None = Field(
        default=None,
        description="Candidates of defect types, or for given masks, that had all their pairs.",
    )
    defects: dict[str, int] | None = Field(
        default=None, description="Accepted pairs by defect type, of an adapter with several."
    )
    masks: dict[str, int] | None = Field(
        default=None,
        description="Accepted pairs by given mask: `placements[0]`, or `placements[0] (crack)` where it is for several "
        "defect types.",
    )
    masks_rejected: dict[str, dict[str, int]] | None = Field(
        default=None,
        description="Number of rejected candidates by given mask and reason; masks without any are left out.",
    )


class Sample(_Schema):
    """A sheet of sample pairs."""

    step: int = Field(description="Training step of the weights that generated it.")
    link: str = Field(description="Path of the sheet.")


class Dataset(_Schema):
    """Name, size and hash of a job's zip."""

    name: str = Field(description="The name that it is saved under.")
    bytes: int = Field(description="Size of the zip.")
    sha256: str = Field(description="Hexadecimal hash of the zip.")


class Partial(_Schema):
    """Why a dataset has fewer pairs than were asked for."""

    num_pairs: int = Field(description="Pairs in the dataset.")
    code: Literal["attempts_used_up"] = Field(description="Stable identifier of the reason, for programs.")
    detail: str = Field(description="The reason, and what to change.")


class Change(_Schema):
    """How one number changes, over the seeds."""

    change: float = Field(description="Mean: with the pairs minus without them.")
    spread: float | None = Field(default=None, description="Standard deviation; null of one seed.")


class Verdict(_Schema):
    """Whether a job's pairs make a detector better on the adapter's held-out photographs."""

    status: Literal["measured", "not_measured"] = Field(description="Whether the evaluation has a result.")
    metric: str | None = Field(default=None, description="What was compared, a number in 0–1.")
    change: float | None = Field(default=None, description="Mean over the seeds: with the pairs minus without them.")
    spread: float | None = Field(default=None, description="Standard deviation over the seeds; null of one seed.")
    helps: bool | None = Field(default=None, description="Null where the change is no more than chance.")
    seeds: int | None = Field(default=None, description="Number of seeds.")
    by_type: dict[str, Change | None] | None = Field(
        default=None, description="The same for each defect type, where held-out photographs name several."
    )
    accuracy: Change | None = Field(
        default=None, description="Likewise, of the share of held-out defects whose type a classifier tells, 0–1."
    )
    sentence: str | None = Field(default=None, description="The verdict in words.")
    note: str | None = Field(
        default=None,
        description="What limits the numbers: several types that are measured together, a part that seems to train and "
        "test, types without pairs, and what ± leaves out.",
    )
    detail: str | None = Field(default=None, description="Why nothing was measured.")


class Failure(_Schema):
    """Reason of a failure."""

    code: str = Field(
        description="Stable identifier of the reason, for programs; `/docs` lists all.", examples=list(FAILURES)
    )
    detail: str = Field(description="The reason in words.")
    problems: list[str] = Field(default=[], description="All that was wrong, if it was more than one thing.")


class ResolvedRequest(RootModel[dict[str, Any]]):
    """The request, with its seed and the defaults that are known so far."""


class Resource(_Schema):
    """Fields that adapters and jobs share."""

    id: str = Field(description="Its id.")
    state: State
    created_at: datetime = Field(description="When it was accepted.")
    timestamps: dict[State, datetime] = Field(description="Time of the last entry into each state.")
    attempt: int = Field(description="How many times a worker has started it.")
    queue_position: int | None = Field(
        description="Number of records ahead of it in the queue; null unless queued, but 0 in the answer that accepts "
        "a record which a worker has taken already."
    )
    progress: Progress | None = Field(description="Progress of the running stage; null before the first.")
    error: Failure | None = Field(description="Why it failed; null unless it did.")
    stored_bytes: int = Field(description="Bytes that it takes of the key's quota of stored data.")
    metadata: dict[str, str] = Field(description="What was sent as `metadata`.")
    request: ResolvedRequest
    links: dict[str, str] = Field(description="Paths of what can be done with it in its state.")


class AdapterSummary(Resource):
    """An adapter in a list."""

    name: str = Field(description="The name that it was given.")
    method: str = Field(description="How it generates pairs.")
    defects: list[str] = Field(description="The defect types that it learns, one or several.")


class Adapter(AdapterSummary):
    """An adapter: a training on a few pairs and its result."""

    notes: list[str] = Field(description="Notes on uploads that were converted or look odd.")
    loss: list[tuple[int, float]] = Field(description="Points of the loss curve: step and loss.")
    samples: list[Sample] = Field(description="Sheets of pairs that it generated during its training.")
    card: dict[str, Any] | None = Field(description="The adapter's card, once it is trained.")


class JobSummary(Resource):
    """A job in a list."""

    adapter_id: str = Field(description="The adapter that generates its pairs.")
    counts: Counts | None = Field(description="Its candidates so far; null before the first.")
    dataset: Dataset | None = Field(description="Name, size and hash of the dataset, once it is complete.")
    partial: Partial | None = Field(description="Why the dataset is smaller than requested; null if it is not.")
    verdict: Verdict | None = Field(description="What its evaluation found, once it is complete; null without one.")


class Job(JobSummary):
    """A job: the generation of pairs with an adapter."""

    notes: list[str] = Field(description="Notes on the request.")


class AdapterList(_Schema):
    """A page, newest first."""

    data: list[AdapterSummary] = Field(description="The adapters of this page.")
    next_cursor: str | None = Field(description="`cursor` of the next page; null on the last one.")


class JobList(_Schema):
    """A page, newest first."""

    data: list[JobSummary] = Field(description="The jobs of this page.")
    next_cursor: str | None = Field(description="`cursor` of the next page; null on the last one.")


class Link(_Schema):
    """A temporary link to a file, which needs no API key."""

    url: str = Field(description="The link; `curl --output FILE URL` downloads it.")
    expires_at: datetime = Field(description="When it ends.")
    name: str = Field(description="A name for the file.")
    bytes: int = Field(description="Size of the file.")
    sha256: str = Field(description="Hexadecimal hash of the file.")


class ArtifactFile(_Schema):
    """A file of a trained adapter."""

    name: str = Field(description="Path of the file within the adapter's folder.")
    bytes: int = Field(description="Size of the file.")
    sha256: str = Field(description="Hexadecimal hash of the file.")
    url: str = Field(description="A temporary link that needs no API key.")
    expires_at: datetime = Field(description="When the link ends.")


class Artifact(_Schema):
    """Files of a trained adapter; put them into one folder to use it with the library."""

    files: list[ArtifactFile] = Field(description="The files.")


class Recommended(_Schema):
    """What a base recommends for one method."""

    training: dict[str, Any] = Field(description="Training options, used where none are sent.")
    sampling: dict[str, Any] = Field(description="Options of jobs, used where none are sent.")


class Base(_Schema):
    """A base model."""

    name: str = Field(description="What requests call it in `base`.")
    default: bool = Field(description="Whether it is used where a request names none.")
    resolution: int = Field(description="Side of the square pictures that it was trained on, in pixels.")
    resolution_multiple: int = Field(description="`resolution` of a training must be a multiple of this.")
    training: dict[str, Any] = Field(
        description="Training options that it recommends, for any method; `recommended` says which are for which one."
    )
    sampling: dict[str, Any] = Field(description="Options of jobs that it recommends, for any method, likewise.")
    recommended: dict[str, Recommended] = Field(description="Method → what it recommends for that one.")
    license: str | None = Field(description="Licence of its weights; null if it names none.")
    method: str = Field(
        description="Method that suits it best where there are good parts: `anomalydiffusion` where it has learned to "
        "fill masks. A request that names no `method` does not follow it."
    )


class BaseList(_Schema):
    """All bases."""

    data: list[Base] = Field(description="The bases, by name.")


class ProgressEvent(_Schema):
    """The `data` of an event."""

    state: State = Field(description="The record's state.")
    revision: int = Field(description="Grows with each change.")
    attempt: int = Field(description="How many times a worker has started it.")
    at: float = Field(description="Unix time of the event.")
    progress: Progress | None = Field(description="Progress of the running stage; null before the first.")
    counts: Counts | None = Field(description="A job's candidates so far.")
    error: Failure | None = Field(description="Why it failed; null unless it did.")


class Readiness(_Schema):
    """Whether Redis, the object store and workers are available."""

    ready: bool = Field(description="Whether requests will be served in full.")
    redis: bool = Field(description="Whether Redis answers.")
    redis_writable: bool = Field(description="Whether Redis takes new records; it does not at its memory limit.")
    storage: bool = Field(description="Whether the object store answers.")
    workers: int = Field(description="Workers with a heartbeat in the last half minute.")
