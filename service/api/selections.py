"""Route under `/jobs/{id}/selections`: the pairs that a person approved become a dataset of their own."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from anyio import to_thread
from fastapi import APIRouter, Depends, Request, Response
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from service.api import resources, schemas
from service.api.auth import KeyId
from service.api.drawn_masks import drawn_mask
from service.api.jobs import JobId
from service.api.json_body import documented_body, read_json
from service.api.made_pairs import MadePair, uploaded
from service.api.pairs import LookedAt, looked_at
from service.api.parameters import known_parameters_only
from service.api.problems import Problem, documented, pointer, summary
from service.api.representations import rfc3339
from service.api.services import Services, UsedServices
from service.api.submission import Submission, kept_if_created, replayed, require_rate, submit
from service.core import object_keys
from service.core.object_keys import Kind
from service.core.record import Record, State
from service.core.requests import Phrase
from service.core.storage import MissingObject
from service.core.strict_json import to_json

router = APIRouter(
    prefix="/jobs",
    tags=["pairs"],
    dependencies=[Depends(known_parameters_only)],
    responses=documented("unauthorized", "forbidden", "read_only_key", "unavailable"),
)


MAX_JOBS = 32
"""Most jobs whose pairs one selection joins; a worker fetches the datasets of all of them."""


def _written(at: object) -> object:
    """Refuse numbers, which pydantic would take for seconds since 1970."""
    if at is None or isinstance(at, str):
        return at
    raise ValueError('it must be a time such as "2026-11-28T10:15:00Z"')


class Approval(BaseModel):
    """One approved pair."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    candidate: Annotated[
        int, Field(strict=True, ge=0, le=99_999_999, description="Its `candidate` in the list of pairs.")
    ]
    job_id: Annotated[
        str | None, Field(max_length=40, description="Another job of the same adapter that it is from.")
    ] = None
    at: Annotated[
        AwareDatetime | None, BeforeValidator(_written), Field(description="When it was approved; now by default.")
    ] = None
    mask: Annotated[
        str | None,
        Field(
            max_length=4_000_000,
            description="A mask that replaces the generated one, where somebody has touched it up: base64 of a PNG of "
            "the image's size, or its data URL, white is the defect.",
        ),
    ] = None


class SelectionRequest(BaseModel):
    """The approved pairs of a job, and of others of its adapter."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reviewer: Annotated[Phrase, Field(description="Who approved them; a name, for the dataset's manifest.")]
    approved: Annotated[
        tuple[Approval, ...], Field(min_length=1, max_length=10_000, description="The pairs to keep, each once.")
    ]
    formats: Annotated[
        tuple[Literal["mvtec", "coco", "yolo", "labelstudio"], ...],
        Field(max_length=4, description="Further layouts of the dataset."),
    ] = ()


_EXAMPLE = {
    "reviewer": "A. Inspector",
    "approved": [{"candidate": 0, "at": "2026-11-28T10:15:00Z"}, {"candidate": 4}],
    "formats": ["coco"],
}


@router.post(
    "/{job_id}/selections",
    status_code=202,
    response_description="The record was created, or was before by the same request.",
    response_model=schemas.Job,
    responses={
        202: {"headers": resources.ACCEPTED},
        **documented(
            *("bad_request", "job_not_found", "not_finished", "no_result", "too_slow", "content_too_large"),
            *("unsupported_media_type", "invalid_request", "quota_exceeded", "rate_limited", "idempotency_key_reused"),
        ),
    },
    openapi_extra=documented_body(SelectionRequest, _EXAMPLE),
)
async def create_selection(
    request: Request,
    services: UsedServices,
    key_id: KeyId,
    job_id: JobId,
    idempotency_key: resources.IdempotencyKey = None,
) -> Response:
    """Make a new dataset of the approved pairs of a job, together with those of further jobs of its adapter.

    The answer is a job of its own, with progress, events and a dataset like any other; its pairs can be selected from
    again. Its pairs are in the order of their jobs, that of the path first, and of their candidates. The manifest holds
    who approved each pair and when, and which candidate of which job it was; `dataset.json` names the datasets that
    they are from. The same request with a time for every pair gives the same bytes.
    """
    await to_thread.run_sync(require_rate, services, key_id)
    wanted, sent = await read_json(request, SelectionRequest, _EXAMPLE)
    fingerprint = f"{job_id}\n{to_json(sent, sort_keys=True)}"
    submission = Submission.of(
        request, Kind.JOB, key_id, idempotency_key, hashlib.sha256(fingerprint.encode()).hexdigest()
    )
    if (first := await to_thread.run_sync(replayed, services, submission)) is not None:
        return await resources.accepted(request, services, first, replayed=True)
    source = await resources.owned(services, Kind.JOB, job_id, key_id)
    resources.require_result(source, "dataset")
    shared = looked_at(request, services)
    record = await to_thread.run_sync(_stored_and_submitted, services, shared, submission, source, wanted)
    return await resources.accepted(request, services, record, replayed=record.id != submission.id)


def _stored_and_submitted(
    services: Services, shared: LookedAt, submission: Submission, source: Record, wanted: SelectionRequest
) -> Record:
    """Check the pairs and store their list, then create the record; delete the list if the record is refused."""
    chosen = _checked(services, shared, source, wanted)
    pairs = [pair for _, found in chosen for pair in found]
    described = {
        "job_id": source.id,
        "jobs": [
            {"job_id": each.id, "dataset_sha256": (each.result or {})["sha256"], "approved": len(found)}
            for each, found in chosen
        ],
        "by": wanted.reviewer,
        "key": submission.key_id,
        "approved": len(pairs),
        "touched_up": sum(pair["mask"] is not None for pair in pairs),
        "first_at": min(pair["at"] for pair in pairs),
        "last_at": max(pair["at"] for pair in pairs),
    }
    content = {
        "version": 2,
        "sources": [
            {"job_id": each.id, "dataset": (each.result or {})["dataset"], "pairs": found} for each, found in chosen
        ],
        "adapter_normals": bool(wanted.formats) and _adapter_has_normals(shared, source),
        "selection": described,
    }
    request = {
        "adapter_id": source.request["adapter_id"],
        "num_pairs": len(pairs),
        "seed": source.request.get("seed"),
        "formats": list(wanted.formats),
        "selection": {name: described[name] for name in ("job_id", "jobs", "by", "approved", "touched_up")},
    }
    job, listed = submission.id, to_json(content).encode()
    with kept_if_created(services, job) as created:
        services.storage.put(object_keys.approved(job), listed, "application/json")
        return created(submit(services, submission, request, stored_bytes=len(listed)))


def _adapter_has_normals(shared: LookedAt, source: Record) -> bool:
    try:
        return bool(uploaded(shared.storage, source.request["adapter_id"])["normals"])
    except MissingObject:
        return False


def _checked(
    services: Services, shared: LookedAt, source: Record, wanted: SelectionRequest
) -> list[tuple[Record, list[dict[str, Any]]]]:
    """Return the jobs, that of the path first, each with its approved pairs, their times and checked masks.

    Raises:
        Problem: lists every pair that no dataset has, that is named twice, or whose mask does not fit.
    """
    jobs, errors = _jobs(services, source, wanted)
    known = {
        job.id: {pair.candidate: pair for pair in shared.pairs.listed(job, accepted=True)} for job in jobs.values()
    }
    now = rfc3339(datetime.now(UTC).timestamp())
    found: dict[str, dict[int, dict[str, Any]]] = {job: {} for job in known}
    origins = set[tuple[str, int]]()
    for place, approval in enumerate(wanted.approved):
        job = jobs.get(approval.job_id or source.id)
        if job is None:
            continue
        pair, mask = known[job.id].get(approval.candidate), None
        where = pointer("approved", place, "candidate")
        if pair is None:
            detail = f"candidate {approval.candidate} is not in the dataset of job {job.id}"
            errors.append({"pointer": where, "detail": detail})
            continue
        if (origin := _origin(job, pair)) in origins:
            detail = f"candidate {approval.candidate} of job {job.id} is named twice, or is one of another job that is"
            errors.append({"pointer": where, "detail": detail})
            continue
        origins.add(origin)
        if approval.mask is not None:
            facts = pair.facts
            try:
                mask = drawn_mask(approval.mask, {(facts["width"], facts["height"])}, f"candidate {pair.candidate}")
            except ValueError as error:
                errors.append({"pointer": pointer("approved", place, "mask"), "detail": str(error)})
        at = rfc3339(approval.at.timestamp()) if approval.at is not None else now
        found[job.id][pair.candidate] = {"candidate": pair.candidate, "by": wanted.reviewer, "at": at, "mask": mask}
    if errors:
        details = [error["detail"] for error in errors]
        raise Problem("invalid_request", summary(details), errors=errors)
    ordered = [source, *sorted((job for job in jobs.values() if job is not source), key=lambda job: job.id)]
    return [(job, [found[job.id][candidate] for candidate in sorted(found[job.id])]) for job in ordered]


def _jobs(
    services: Services, source: Record, wanted: SelectionRequest
) -> tuple[dict[str, Record], list[dict[str, str]]]:
    """Return id → record of all jobs that pairs are taken from, and what speaks against the others."""
    jobs, errors = {source.id: source}, list[dict[str, str]]()
    places = {approval.job_id: place for place, approval in reversed([*enumerate(wanted.approved)]) if approval.job_id}
    if len(places) > MAX_JOBS:
        detail = f"the pairs are from {len(places)} jobs; at most {MAX_JOBS} can be joined: make several selections"
        raise Problem("invalid_request", detail, errors=[{"pointer": pointer("approved"), "detail": detail}])
    for job_id, place in sorted(places.items(), key=lambda item: item[1]):
        if job_id == source.id:
            continue
        job = services.store.records.get(job_id) if object_keys.kind_of(job_id) == Kind.JOB else None
        if job is None or job.key_id != source.key_id:
            detail = f"no job has the id {job_id!r:.60}; it may have been deleted"
        elif job.state is not State.SUCCEEDED or job.result is None:
            detail = f"job {job.id} is {job.state}: it has no pairs to take"
        elif job.request["adapter_id"] != source.request["adapter_id"]:
            detail = (
                f"job {job.id} is of another adapter than job {source.id}: one dataset has the pairs of one adapter"
            )
        else:
            jobs[job.id] = job
            continue
        errors.append({"pointer": pointer("approved", place, "job_id"), "detail": detail})
    return jobs, errors


def _origin(job: Record, pair: MadePair) -> tuple[str, int]:
    """Return what two jobs share only where they have the same pair: the first job of a series, and the candidate.

    A pair of a selection is known by the job that generated it.
    """
    review = pair.facts.get("review") or {}
    if "job_id" in review:
        return review["job_id"], review["candidate"]
    return (job.request.get("follows") or {}).get("first_job_id", job.id), pair.candidate
