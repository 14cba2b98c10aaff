"""Route under `/jobs/{id}/replacements`: new pairs instead of those that a reviewer rejected."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from service.api import resources, schemas
from service.api.auth import KeyId
from service.api.jobs import JobId, require_num_pairs, submitted
from service.api.json_body import documented_body, read_json
from service.api.parameters import known_parameters_only
from service.api.places import CheckedPlaces
from service.api.problems import Problem, documented
from service.api.services import Services, UsedServices
from service.api.submission import Submission, replayed, require_rate
from service.api.unfit_jobs import types_of, unplaced
from service.core import object_keys
from service.core.object_keys import Kind
from service.core.options.combinations import PLACES
from service.core.record import Record
from service.core.requests import Phrase
from service.core.storage import MissingObject
from service.core.strict_json import parse, to_json

router = APIRouter(
    prefix="/jobs",
    tags=["pairs"],
    dependencies=[Depends(known_parameters_only)],
    responses=documented("unauthorized", "forbidden", "read_only_key", "unavailable"),
)


class ReplacementRequest(BaseModel):
    """How many more pairs are wanted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    num_pairs: Annotated[int, Field(ge=1, description="Pairs to accept.")]
    defects: Annotated[
        dict[Phrase, Annotated[int, Field(ge=1)]] | None,
        Field(
            min_length=1,
            max_length=64,
            description="How many of them show each defect type, of an adapter that learned several; evenly spread by "
            "default.",
        ),
    ] = None


_EXAMPLE = {"num_pairs": 3}


@router.post(
    "/{job_id}/replacements",
    status_code=202,
    response_description="The record was created, or was before by the same request.",
    response_model=schemas.Job,
    responses={
        202: {"headers": resources.ACCEPTED},
        **documented(
            *(
                "bad_request",
                "job_not_found",
                "adapter_not_found",
                "adapter_not_ready",
                "not_finished",
                "no_result",
                "already_replaced",
                "too_slow",
            ),
            *("content_too_large", "unsupported_media_type", "invalid_request", "quota_exceeded", "rate_limited"),
            "idempotency_key_reused",
        ),
    },
    openapi_extra=documented_body(ReplacementRequest, _EXAMPLE),
)
async def create_replacements(
    request: Request,
    services: UsedServices,
    key_id: KeyId,
    job_id: JobId,
    idempotency_key: resources.IdempotencyKey = None,
) -> Response:
    """Generate further pairs as a finished job did, for those that a reviewer rejected.

    The answer is a job of its own, of the same adapter, options and seed. It goes on with the candidates where the
    first one stopped, and keeps no copies of its pairs: both together have the pairs of one larger job.
    `request.follows` names the job that it follows, and the first of the series; to go on again, name the last one.
    A job has one follower that is queued, running or has succeeded, so that no two make the same pairs.
    `POST /jobs/{id}/selections` joins the approved pairs of all.
    """
    await to_thread.run_sync(require_rate, services, key_id)
    wanted, sent = await read_json(request, ReplacementRequest, _EXAMPLE)
    fingerprint = f"{job_id}\nreplacements\n{to_json(sent, sort_keys=True)}"
    submission = Submission.of(
        request, Kind.JOB, key_id, idempotency_key, hashlib.sha256(fingerprint.encode()).hexdigest()
    )
    if (first := await to_thread.run_sync(replayed, services, submission)) is not None:
        return await resources.accepted(request, services, first, replayed=True)
    require_num_pairs(services, wanted.num_pairs)
    source = await resources.owned(services, Kind.JOB, job_id, key_id)
    if source.is_selection:
        detail = f"job {source.id} chose pairs of other jobs and generates none: name one of those"
        raise Problem("invalid_request", detail, errors=[{"parameter": "job_id", "in": "path", "detail": detail}])
    counts = resources.require_result(source, "pairs")["counts"]
    adapter = await resources.owned(services, Kind.ADAPTER, source.request["adapter_id"], key_id)
    if why := unfit_types(wanted, types_of(adapter)):
        raise Problem("invalid_request", why, errors=[{"pointer": "/defects", "detail": why}])
    asked = following(source, counts["attempts"] + counts.get("skipped", 0), wanted)
    if lacking := unplaced(asked, types_of(adapter)):
        detail = f"no mask of job {source.id} is for {', '.join(lacking)}: say in defects which types to replace"
        raise Problem("invalid_request", detail, errors=[{"pointer": "/defects", "detail": detail}])
    places = CheckedPlaces(masks=await to_thread.run_sync(_drawn_masks, services, source))
    record = await submitted(services, submission, adapter, asked, places)
    return await resources.accepted(request, services, record, replayed=record.id != submission.id)


def following(source: Record, reached: int, wanted: ReplacementRequest) -> dict[str, Any]:
    """Return the request of a job that goes on after another one, without its evaluation.

    Args:
        reached: the candidates that the other one has tried or skipped.
    """
    before = source.request.get("follows") or {}
    most = source.request.get("max_attempts")
    return {
        **source.request,
        "num_pairs": wanted.num_pairs,
        "defects": wanted.defects,
        "max_attempts": most if most is None else max(most, wanted.num_pairs),
        "evaluation": None,
        "follows": {
            "job_id": source.id,
            "first_job_id": before.get("first_job_id", source.id),
            "first_candidate": before.get("first_candidate", 0) + reached,
        },
    }


def unfit_types(wanted: ReplacementRequest, types: Sequence[str]) -> str:
    """Return what speaks against the wanted types; nothing if they are fine."""
    if wanted.defects is None:
        return ""
    if unknown := [name for name in wanted.defects if name not in types]:
        return f"the adapter did not learn {', '.join(unknown)}; it knows {', '.join(types)}"
    if (total := sum(wanted.defects.values())) != wanted.num_pairs:
        return f"defects add up to {total} pairs, num_pairs is {wanted.num_pairs}: make them equal"
    return ""


def _drawn_masks(services: Services, source: Record) -> dict[str, str]:
    """Return the masks that were drawn for a job, for the one that follows it.

    Raises:
        Problem: the job was deleted meanwhile.
    """
    if not any(place.get("mask") for name in PLACES for place in source.request.get(name) or ()):
        return {}
    try:
        stored: dict[str, str] = parse(services.storage.get(object_keys.places(source.id)))["masks"]
    except MissingObject as error:
        raise Problem("job_not_found", f"job {source.id} was deleted") from error
    return stored
