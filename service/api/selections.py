"""Route under `/jobs/{id}/selections`: the pairs that a person approved become a dataset of their own."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from anyio import to_thread
from fastapi import APIRouter, Depends, Request, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from service.api import resources, schemas
from service.api.auth import KeyId
from service.api.drawn_masks import drawn_mask
from service.api.jobs import JobId
from service.api.json_body import documented_body, read_json
from service.api.made_pairs import uploaded
from service.api.pairs import LookedAt, looked_at
from service.api.parameters import known_parameters_only
from service.api.problems import Problem, documented, pointer, summary
from service.api.representations import rfc3339
from service.api.services import Services, UsedServices
from service.api.submission import Submission, kept_if_created, replayed, require_rate, submit
from service.core import object_keys
from service.core.object_keys import Kind
from service.core.record import Record
from service.core.requests import Phrase
from service.core.storage import MissingObject
from service.core.strict_json import to_json

router = APIRouter(
    prefix="/jobs",
    tags=["pairs"],
    dependencies=[Depends(known_parameters_only)],
    responses=documented("unauthorized", "forbidden", "read_only_key", "unavailable"),
)


class Approval(BaseModel):
    """One approved pair."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    candidate: Annotated[int, Field(ge=0, le=99_999_999, description="Its `candidate` in the list of pairs.")]
    at: Annotated[AwareDatetime | None, Field(description="When it was approved; now by default.")] = None
    mask: Annotated[
        str | None,
        Field(
            max_length=4_000_000,
            description="A mask that replaces the generated one, where somebody has touched it up: base64 of a PNG of "
            "the image's size, white is the defect.",
        ),
    ] = None


class SelectionRequest(BaseModel):
    """The approved pairs of a job."""

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
    """Make a new dataset of the approved pairs of a job.

    The answer is a job of its own, with progress, events and a dataset like any other; its pairs can be selected from
    again. The manifest holds who approved each pair and when, and `dataset.json` which dataset they are from. The same
    request with a time for every pair gives the same bytes.
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
    pairs = _checked(shared, source, wanted)
    result = source.result or {}
    touched_up = sum(pair["mask"] is not None for pair in pairs)
    described = {
        "job_id": source.id,
        "dataset_sha256": result["sha256"],
        "by": wanted.reviewer,
        "key": submission.key_id,
        "approved": len(pairs),
        "touched_up": touched_up,
        "first_at": min(pair["at"] for pair in pairs),
        "last_at": max(pair["at"] for pair in pairs),
    }
    content = {
        "version": 1,
        "dataset": result["dataset"],
        "adapter_normals": bool(wanted.formats) and _adapter_has_normals(shared, source),
        "pairs": pairs,
        "selection": described,
    }
    request = {
        "adapter_id": source.request["adapter_id"],
        "num_pairs": len(pairs),
        "seed": source.request.get("seed"),
        "formats": list(wanted.formats),
        "selection": {name: described[name] for name in ("job_id", "by", "approved", "touched_up")},
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


def _checked(shared: LookedAt, source: Record, wanted: SelectionRequest) -> list[dict[str, Any]]:
    """Return the approved pairs in the order of their candidates, with times and checked masks.

    Raises:
        Problem: lists every pair that the dataset does not have, that is named twice, or whose mask does not fit.
    """
    known = {pair.candidate: pair for pair in shared.pairs.listed(source, accepted=True)}
    now, found, errors = rfc3339(datetime.now(UTC).timestamp()), dict[int, dict[str, Any]](), list[dict[str, str]]()
    for place, approval in enumerate(wanted.approved):
        pair, mask = known.get(approval.candidate), None
        where = pointer("approved", place, "candidate")
        if pair is None:
            detail = f"candidate {approval.candidate} is not in the dataset of job {source.id}"
            errors.append({"pointer": where, "detail": detail})
            continue
        if approval.candidate in found:
            errors.append({"pointer": where, "detail": f"candidate {approval.candidate} is named twice"})
            continue
        if approval.mask is not None:
            facts = pair.facts
            try:
                mask = drawn_mask(approval.mask, {(facts["width"], facts["height"])}, f"candidate {pair.candidate}")
            except ValueError as error:
                errors.append({"pointer": pointer("approved", place, "mask"), "detail": str(error)})
        at = rfc3339(approval.at.timestamp()) if approval.at is not None else now
        found[approval.candidate] = {"candidate": pair.candidate, "by": wanted.reviewer, "at": at, "mask": mask}
    if errors:
        details = [error["detail"] for error in errors]
        raise Problem("invalid_request", summary(details), errors=errors)
    return [found[candidate] for candidate in sorted(found)]
