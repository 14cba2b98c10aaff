"""Routes under `/jobs`: generating pairs with an adapter."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Depends, Path, Request, Response

from service.api import events, resources, schemas
from service.api.auth import KeyId
from service.api.bases import unfit_for_sampling, work_of_job
from service.api.json_body import documented_body, read_json
from service.api.made_pairs import uploaded
from service.api.parameters import known_parameters_only
from service.api.places import CheckedPlaces, check_places
from service.api.problems import Problem, documented, pointer, summary
from service.api.representations import POLL_SECONDS
from service.api.services import Services, UsedServices
from service.api.submission import Submission, kept_if_created, replayed, require_rate, submit
from service.api.unfit_jobs import refused, types_of
from service.core import object_keys
from service.core.object_keys import Kind, dataset_name
from service.core.options.combinations import PLACES
from service.core.options.methods import DEFAULT_METHOD, own_options
from service.core.record import Record, State
from service.core.requests import JobRequest, unset
from service.core.storage import MissingObject
from service.core.strict_json import to_json
from service.core.webhooks import refusal

router = APIRouter(
    prefix="/jobs",
    tags=["jobs"],
    dependencies=[Depends(known_parameters_only)],
    responses=documented("unauthorized", "forbidden", "read_only_key", "unavailable"),
)

JobId = Annotated[str, Path(description="The id that `POST /jobs` returned.")]


_EXAMPLE = {"adapter_id": "adp_01k0000000000000000000000a", "num_pairs": 8, "formats": ["coco"]}
_TYPED = {"adapter_id": _EXAMPLE["adapter_id"], "defects": {"crack": 8, "break": 4}}
_PLACED = {**_EXAMPLE, "region": [0, 0.5, 0.5, 1], "sizes": [0.5, 1], "on_object": True}
_OUTLINED = {**_EXAMPLE, "placements": [{"polygon": [[0.2, 0.3], [0.6, 0.32], [0.4, 0.4]], "normal": "good_1.png"}]}
_BAR = "iVBORw0KGgoAAAANSUhEUgAAACAAAAAgAQAAAABbAUdZAAAAF0lEQVR42mNgoA74/4GBiYGBAYmgDgAAq7gB9o6pwqQAAAAASUVORK5CYII="
"""A bar on 32 × 32 pixels, as base64 of a PNG; yours is of your good part's size."""

_DRAWN = {
    "adapter_id": _EXAMPLE["adapter_id"],
    "defects": {"crack": 4},
    "placements": [{"mask": _BAR, "normal": "good_1.png", "defect": "crack"}],
}
_BOUNDED = {
    **_EXAMPLE,
    "allowed": [{"polygon": [[0, 0.5], [1, 0.5], [1, 1], [0, 1]]}],
    "forbidden": [{"polygon": [[0.4, 0.6], [0.6, 0.6], [0.6, 0.8], [0.4, 0.8]], "normal": "good_1.png"}],
}
_EVALUATED = {**_EXAMPLE, "num_pairs": 64, "evaluation": {"profile": "quick", "seeds": 3}}


@router.post(
    "",
    status_code=202,
    response_description="The record was created, or was before by the same request.",
    response_model=schemas.Job,
    responses={
        202: {"headers": resources.ACCEPTED},
        **documented(
            *("bad_request", "adapter_not_found", "adapter_not_ready", "too_slow", "content_too_large"),
            *("unsupported_media_type", "invalid_request", "quota_exceeded", "rate_limited", "idempotency_key_reused"),
        ),
    },
    openapi_extra=documented_body(JobRequest, _EXAMPLE, _TYPED, _PLACED, _OUTLINED, _DRAWN, _BOUNDED, _EVALUATED),
)
async def create_job(
    request: Request,
    services: UsedServices,
    key_id: KeyId,
    idempotency_key: resources.IdempotencyKey = None,
) -> Response:
    """Generate `num_pairs` accepted pairs with a trained adapter.

    Replace the adapter id of the example with that of an adapter that has succeeded; `GET /v1/adapters` lists yours.
    `defects` says how many pairs of each type an adapter of several is asked for. `region`, `allowed` and `forbidden`
    say where defects may lie, `placements` where each of them does; outlines are shares of the photograph, and a `mask`
    is drawn at its size.
    With `evaluation`, the job also measures what its pairs are worth, on the held-out pictures that were uploaded with
    the adapter. Detectors are trained for that, which takes longer than generating the pairs; should it fail, the job
    succeeds all the same, and `verdict` says why there are no numbers.
    """
    await to_thread.run_sync(require_rate, services, key_id)
    wanted, sent = await read_json(request, JobRequest, _EXAMPLE)
    # Hashed as received: parsing may draw a random seed.
    body = to_json(sent, sort_keys=True)
    submission = Submission.of(request, Kind.JOB, key_id, idempotency_key, hashlib.sha256(body.encode()).hexdigest())
    if (first := await to_thread.run_sync(replayed, services, submission)) is not None:
        return await resources.accepted(request, services, first, replayed=True)
    if wanted.webhook and (why := refusal(wanted.webhook, services.settings)):
        raise Problem("invalid_request", why, errors=[{"pointer": "/webhook", "detail": why}])
    require_num_pairs(services, wanted.num_pairs)
    adapter = await resources.owned(services, Kind.ADAPTER, wanted.adapter_id, key_id)
    if adapter.state != State.SUCCEEDED:
        detail = f"adapter {adapter.id} is {adapter.state}: a job needs one that has succeeded"
        waiting = POLL_SECONDS.get(adapter.state)
        headers = {"Retry-After": str(waiting)} if waiting else None
        raise Problem(
            "adapter_not_ready", detail, errors=[{"pointer": "/adapter_id", "detail": detail}], headers=headers
        )
    if wanted.evaluation is not None and "held_out" not in adapter.request:
        detail = (
            f"adapter {adapter.id} has no held-out pairs to evaluate on: upload held_out_images[] and "
            "held_out_masks[] (--held-out-images, --held-out-masks) when you create an adapter, or leave evaluation out"
        )
        raise Problem("invalid_request", detail, errors=[{"pointer": "/evaluation", "detail": detail}])
    method = adapter.request.get("method", DEFAULT_METHOD)
    asked = wanted.model_dump(mode="json", exclude={"metadata", "webhook"})
    if found := await to_thread.run_sync(refused, services, adapter, asked):
        errors = [{"pointer": pointer(name), "detail": detail} for name, detail in found.items()]
        raise Problem("invalid_request", summary(list(dict.fromkeys(found.values()))), errors=errors)
    places = await to_thread.run_sync(_checked_places, services, wanted, types_of(adapter))
    asked = own_options("sampling", method, asked) | places.fields
    asked |= wanted.model_dump(mode="json", include={"metadata", "webhook"} - unset(wanted))
    record = await submitted(services, submission, adapter, asked, places)
    return await resources.accepted(request, services, record, replayed=record.id != submission.id)


def require_num_pairs(services: Services, num_pairs: int) -> None:
    """Refuse a job of more pairs than one may have.

    Raises:
        Problem: it has more.
    """
    most = services.settings.max_num_pairs
    if num_pairs > most:
        detail = f"one job generates at most {most} pairs: ask for fewer, or create several jobs"
        raise Problem("invalid_request", detail, errors=[{"pointer": "/num_pairs", "detail": detail}])


async def submitted(
    services: Services, submission: Submission, adapter: Record, asked: dict[str, Any], places: CheckedPlaces
) -> Record:
    """Create the record of a checked request.

    Args:
        places: the masks that were drawn for it, which are stored.

    Raises:
        Problem: it is too much work, or `submit` refuses it.
    """
    work = await to_thread.run_sync(work_of_job, services, adapter, asked)
    if errors := unfit_for_sampling(services, work):
        raise Problem("invalid_request", summary([error["detail"] for error in errors]), errors=errors)
    store = partial(_stored_and_submitted, places, work=work.total if work is not None else 0)
    return await to_thread.run_sync(store, services, submission, asked)


def _checked_places(services: Services, wanted: JobRequest, types: Sequence[str]) -> CheckedPlaces:
    """Check what is said about places, if anything is.

    Raises:
        Problem: naming all that cannot be, or the adapter was deleted.
    """
    if all(getattr(wanted, name) is None for name in (*PLACES, "region")):
        return CheckedPlaces()
    try:
        normals = uploaded(services.storage, wanted.adapter_id)["normals"]
    except MissingObject as error:
        raise Problem("adapter_not_found", f"adapter {wanted.adapter_id} was deleted") from error
    return check_places(wanted, normals, types)


def _stored_and_submitted(
    places: CheckedPlaces, services: Services, submission: Submission, asked: dict[str, Any], *, work: int
) -> Record:
    """Store drawn masks, if there are any, then create the record; delete them if the record is refused."""
    if not places.masks:
        return submit(services, submission, asked, work=work)
    stored = to_json({"version": 1, "masks": places.masks}).encode()
    with kept_if_created(services, submission.id) as created:
        services.storage.put(object_keys.places(submission.id), stored, "application/json")
        return created(submit(services, submission, asked, stored_bytes=len(stored), work=work))


@router.get("", response_model=schemas.JobList, responses=documented("invalid_request"))
def list_jobs(
    services: UsedServices,
    key_id: KeyId,
    state: resources.OfState = None,
    adapter_id: resources.OfAdapter = None,
    cursor: resources.JobCursor = None,
    after: resources.AfterJob = None,
    limit: resources.Limit = 20,
) -> Response:
    """List your jobs, newest first, without their notes; `GET /v1/jobs/{job_id}` returns everything."""
    return resources.page(
        services, Kind.JOB, key_id, state=state, adapter=adapter_id, cursor=cursor or after, limit=limit
    )


@router.get(
    "/{job_id}",
    response_model=schemas.Job,
    responses={304: {"description": "`If-None-Match` names the present state."}, **documented("job_not_found")},
)
async def get_job(request: Request, services: UsedServices, key_id: KeyId, job_id: JobId) -> Response:
    """Get the state, progress, counts of accepted and rejected candidates, and links of a job."""
    return await resources.read(request, services, Kind.JOB, job_id, key_id)


@router.post(
    "/{job_id}/cancel",
    response_model=schemas.Job,
    responses={
        202: {"model": schemas.Job, "description": "The worker was asked to stop."},
        **documented("job_not_found", "already_finished"),
    },
)
async def cancel_job(request: Request, services: UsedServices, key_id: KeyId, job_id: JobId) -> Response:
    """Stop a job and delete what it stored."""
    return await resources.cancel(request, services, Kind.JOB, job_id, key_id)


@router.delete("/{job_id}", status_code=204, responses=documented("job_not_found", "not_finished"))
async def delete_job(services: UsedServices, key_id: KeyId, job_id: JobId) -> Response:
    """Delete a finished job and its dataset."""
    return await resources.delete(services, Kind.JOB, job_id, key_id)


@router.get(
    "/{job_id}/events",
    response_class=events.EventStream,
    responses={
        200: events.DESCRIBED,
        204: {"description": "The job has ended: there are no more events."},
        **documented("job_not_found", "invalid_request", "too_many_open"),
    },
)
async def stream_job_events(
    services: UsedServices,
    key_id: KeyId,
    job_id: JobId,
    last_event_id: events.LastEventId = None,
) -> Response:
    """Stream changes of state and progress as they happen; `Last-Event-ID` resumes after an event."""
    record = await resources.owned(services, Kind.JOB, job_id, key_id)
    return await events.stream(services, record, last_event_id)


@router.get(
    "/{job_id}/dataset",
    status_code=303,
    response_class=Response,
    responses={**resources.LINKED, **documented("job_not_found", "not_finished", "no_result")},
)
async def get_job_dataset(
    request: Request, services: UsedServices, key_id: KeyId, job_id: JobId, *, redirect: resources.Redirect = True
) -> Response:
    """Download the dataset: a zip of images and masks.

    With `redirect=false`, the link is in the body, for programs that would send their API key along to its host.
    """
    record = await resources.owned(services, Kind.JOB, job_id, key_id)
    result = resources.require_result(record, "dataset")
    name = result.get("name") or dataset_name("", job_id)  # earlier versions stored none
    file = resources.File(result["dataset"], name, "application/zip", result["bytes"], result["sha256"])
    return await resources.signed(services, file, redirect=redirect, head=request.method == "HEAD")


@router.get(
    "/{job_id}/preview",
    status_code=303,
    response_class=Response,
    responses={**resources.LINKED, **documented("job_not_found", "not_finished", "no_result")},
)
async def get_job_preview(
    request: Request, services: UsedServices, key_id: KeyId, job_id: JobId, *, redirect: resources.Redirect = True
) -> Response:
    """Download a sheet of some of the pairs, as PNG."""
    record = await resources.owned(services, Kind.JOB, job_id, key_id)
    result = resources.require_result(record, "preview")
    file = resources.File(result["preview"], f"{job_id}-preview.png", "image/png")
    return await resources.signed(services, file, redirect=redirect, head=request.method == "HEAD")
