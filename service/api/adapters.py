"""Routes under `/adapters`: training on a few pairs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal

from anyio import to_thread
from fastapi import APIRouter, Depends, Path, Query, Request, Response

from service.api import events, resources, schemas
from service.api.adapter_form import FORM, read_request
from service.api.auth import KeyId
from service.api.bases import unfit_for_training, work_of_adapter
from service.api.decoding import Picture, Pictures, Refused, declared, decode_uploads
from service.api.parameters import known_parameters_only
from service.api.problems import Problem, documented, pointer, summary
from service.api.representations import rfc3339, samples
from service.api.services import Services, UsedServices
from service.api.submission import Submission, kept_if_created, replayed, require_quota, submit
from service.api.uploads import receive_form
from service.core import object_keys
from service.core.object_keys import Kind, Upload
from service.core.options.methods import own_options
from service.core.record import Record
from service.core.records.errors import AdapterInUse
from service.core.requests import AdapterRequest, unset
from service.core.storage import StorageError
from service.core.strict_json import to_json
from service.core.webhooks import refusal

router = APIRouter(
    prefix="/adapters",
    tags=["adapters"],
    dependencies=[Depends(known_parameters_only)],
    responses=documented("unauthorized", "forbidden", "read_only_key", "unavailable"),
)

STORING_SECONDS = 60.0
"""Time to store an upload; its client should not wait longer for a store that hangs."""

AdapterId = Annotated[str, Path(description="The id that `POST /adapters` returned.")]


@router.post(
    "",
    status_code=202,
    response_description="The record was created, or was before by the same request.",
    response_model=schemas.Adapter,
    openapi_extra=FORM,
    responses={
        202: {"headers": resources.ACCEPTED},
        **documented(
            *("bad_request", "content_too_large", "unsupported_media_type", "invalid_request", "quota_exceeded"),
            *("rate_limited", "idempotency_key_reused", "too_slow", "too_many_open", "spool_full"),
        ),
    },
)
async def create_adapter(
    request: Request, services: UsedServices, key_id: KeyId, idempotency_key: resources.IdempotencyKey = None
) -> Response:
    """Train an adapter on 2 to 64 (better 3 to 10) images of a defect and their masks, paired by file name.

    With `method=anomalydiffusion`, several defect types of one product fit into one adapter: send each one's files in
    fields that name it, `images[crack]` and `masks[crack]`.
    Every method but `dualanodiff` makes its pairs on good parts, and needs some: `normals[]`.
    Held-out pictures are kept apart from the training; jobs of this adapter can be evaluated on them.
    If a file or field is wrong, the response lists every mistake at once, and nothing is stored.
    """
    await to_thread.run_sync(require_quota, services, key_id, idempotency_key)
    with services.uploads.slot(key_id):
        record, is_new = await _create_from_upload(request, services, key_id, idempotency_key)
    return await resources.accepted(request, services, record, replayed=not is_new)


async def _create_from_upload(
    request: Request, services: Services, key_id: str, idempotency_key: str | None
) -> tuple[Record, bool]:
    """Receive the upload and create its record, or return the one that the same request created before.

    Returns:
        The record, and whether it is new.
    """
    async with receive_form(request, services.settings) as form:
        submission = Submission.of(request, Kind.ADAPTER, key_id, idempotency_key, form.fingerprint())
        if (first := await to_thread.run_sync(replayed, services, submission)) is not None:
            return first, False
        wanted, errors = read_request(form)
        if wanted is not None and wanted.webhook and (why := refusal(wanted.webhook, services.settings)):
            errors.append({"pointer": pointer("webhook"), "detail": why})
        if wanted is not None:
            errors += await to_thread.run_sync(unfit_for_training, services, wanted)
        pixels = await to_thread.run_sync(declared, form, services.settings)
        async with services.inspections(pixels).turn(key_id):
            # An equal request may have been served while this one waited.
            if (first := await to_thread.run_sync(replayed, services, submission)) is not None:
                return first, False
            pictures = await decode_uploads(form, services.settings)
        details = [entry["detail"] for entry in errors]
        if isinstance(pictures, Refused):
            errors += pictures.errors
            details += pictures.details
        if wanted is None or isinstance(pictures, Refused) or errors:
            # Listed in full: their number is bounded by that of the files and fields.
            raise Problem("invalid_request", summary(details), errors=errors, listed=len(errors))
        wanted = wanted.model_copy(update={"base": wanted.base or services.settings.base})
        store = partial(
            _stored_and_submitted, services, submission, wanted, pictures, time.monotonic() + STORING_SECONDS
        )
        record = await to_thread.run_sync(store, limiter=services.store_threads)
        return record, record.id == submission.id


def _stored_and_submitted(
    services: Services, submission: Submission, wanted: AdapterRequest, pictures: Pictures, due: float
) -> Record:
    """Store the pictures, then their list, then create the record; delete the pictures if the record is refused.

    Raises:
        StorageError: the store has not taken them by the time `due`, of the monotonic clock.
    """
    adapter = submission.id
    with kept_if_created(services, adapter) as created:
        listing: dict[str, Any] = {"version": 1, "notes": pictures.notes, "brightness": pictures.brightness}
        for kind in Upload:
            listing[kind] = []
            for index, picture in enumerate(pictures.of(kind)):
                if time.monotonic() > due:
                    raise StorageError(f"the object store took more than {STORING_SECONDS:g} s for an upload")
                key = object_keys.upload(adapter, kind, index)
                services.storage.put(key, picture.path, "image/png")
                listing[kind].append(
                    {
                        "name": picture.name,
                        "key": key,
                        "width": picture.width,
                        "height": picture.height,
                        "bytes": picture.bytes,
                        "sha256": picture.sha256,
                        **({"defect": picture.defect} if picture.defect else {}),
                    }
                )
        services.storage.put(object_keys.inputs(adapter), to_json(listing).encode(), "application/json")
        size = sum(picture.bytes for kind in Upload for picture in pictures.of(kind))
        asked = wanted.model_dump(mode="json", exclude=unset(wanted))
        asked["training"] = own_options("training", wanted.method, asked["training"])
        if defects := _counted_types(pictures.of(Upload.IMAGES)):
            asked["defects"] = defects
        if held_out := pictures.of(Upload.HELD_OUT_IMAGES):
            asked["held_out"] = {"pairs": len(held_out), "normals": len(pictures.of(Upload.HELD_OUT_NORMALS))}
            if types := _counted_types(held_out):
                asked["held_out"]["defects"] = types
        work = work_of_adapter(services, asked)
        return created(submit(services, submission, asked, pictures.notes, size, work))


def _counted_types(images: Sequence[Picture]) -> list[dict[str, Any]]:
    """Count the images of each defect type that the form names."""
    shown = Counter(picture.defect for picture in images if picture.defect)
    return [{"name": name, "pairs": count} for name, count in sorted(shown.items())]


@router.get("", response_model=schemas.AdapterList, responses=documented("invalid_request"))
def list_adapters(
    services: UsedServices,
    key_id: KeyId,
    state: resources.OfState = None,
    cursor: resources.AdapterCursor = None,
    after: resources.AfterAdapter = None,
    limit: resources.Limit = 20,
) -> Response:
    """List your adapters, newest first, without notes, curves, samples and cards.

    `GET /v1/adapters/{adapter_id}` returns everything.
    """
    return resources.page(services, Kind.ADAPTER, key_id, state=state, cursor=cursor or after, limit=limit)


@router.get(
    "/{adapter_id}",
    response_model=schemas.Adapter,
    responses={304: {"description": "`If-None-Match` names the present state."}, **documented("adapter_not_found")},
)
async def get_adapter(
    request: Request,
    services: UsedServices,
    key_id: KeyId,
    adapter_id: AdapterId,
    curve: Annotated[
        Literal["thinned", "whole"], Query(description="Whether curves have at most 200 points, or all.")
    ] = "thinned",
) -> Response:
    """Get the state, progress, loss curve, samples and card of an adapter."""
    return await resources.read(request, services, Kind.ADAPTER, adapter_id, key_id, whole_curve=curve == "whole")


@router.post(
    "/{adapter_id}/cancel",
    response_model=schemas.Adapter,
    responses={
        202: {"model": schemas.Adapter, "description": "The worker was asked to stop."},
        **documented("adapter_not_found", "already_finished"),
    },
)
async def cancel_adapter(request: Request, services: UsedServices, key_id: KeyId, adapter_id: AdapterId) -> Response:
    """Stop a training and delete its files."""
    return await resources.cancel(request, services, Kind.ADAPTER, adapter_id, key_id)


@router.delete(
    "/{adapter_id}",
    status_code=204,
    responses=documented("adapter_not_found", "not_finished", "adapter_in_use"),
)
async def delete_adapter(services: UsedServices, key_id: KeyId, adapter_id: AdapterId) -> Response:
    """Delete a finished adapter and its files; datasets generated with it stay."""
    try:
        return await resources.delete(services, Kind.ADAPTER, adapter_id, key_id)
    except AdapterInUse as error:
        raise Problem(
            "adapter_in_use", f"jobs still need this adapter: {', '.join(error.jobs)}; cancel them or wait"
        ) from error


@router.get(
    "/{adapter_id}/events",
    response_class=events.EventStream,
    responses={
        200: events.DESCRIBED,
        204: {"description": "The adapter has ended: there are no more events."},
        **documented("adapter_not_found", "invalid_request", "too_many_open"),
    },
)
async def stream_adapter_events(
    services: UsedServices,
    key_id: KeyId,
    adapter_id: AdapterId,
    last_event_id: events.LastEventId = None,
) -> Response:
    """Stream changes of state and progress as they happen; `Last-Event-ID` resumes after an event."""
    record = await resources.owned(services, Kind.ADAPTER, adapter_id, key_id)
    return await events.stream(services, record, last_event_id)


@router.get(
    "/{adapter_id}/samples/{step}",
    status_code=303,
    response_class=Response,
    responses={**resources.LINKED, **documented("adapter_not_found", "not_found", "invalid_request")},
)
async def get_adapter_sample(
    request: Request,
    services: UsedServices,
    key_id: KeyId,
    adapter_id: AdapterId,
    step: Annotated[int, Path(ge=0, le=9_999_999, description="One of those in `samples`.")],
    *,
    redirect: resources.Redirect = True,
) -> Response:
    """Get a sheet of sample pairs generated at a checkpoint."""
    record = await resources.owned(services, Kind.ADAPTER, adapter_id, key_id)
    if (key := samples(record).get(str(step))) is None:
        raise Problem(
            "not_found", f"no samples at step {step}: `samples` of the adapter lists the steps that have some"
        )
    file = resources.File(key, f"{adapter_id}-{step}.png", "image/png")
    return await resources.signed(services, file, redirect=redirect, head=request.method == "HEAD")


@router.get(
    "/{adapter_id}/artifact",
    response_model=schemas.Artifact,
    responses=documented("adapter_not_found", "not_finished", "no_result"),
)
async def get_adapter_artifact(services: UsedServices, key_id: KeyId, adapter_id: AdapterId) -> Response:
    """Get links to the files of a trained adapter, for use with the library."""
    record = await resources.owned(services, Kind.ADAPTER, adapter_id, key_id)
    result = resources.require_result(record, "artifact")
    files = await to_thread.run_sync(_links, services, result)
    return Response(to_json({"files": files}), media_type="application/json")


def _expiry(services: Services) -> str:
    return rfc3339(time.time() + services.settings.link_seconds)


def _links(services: Services, result: Mapping[str, Any]) -> list[dict[str, Any]]:
    linked = []
    for file in result["files"]:
        link = services.storage.signed_link(
            result["artifact"] + file["path"],
            filename=file["path"].rpartition("/")[2],
            content_type="application/octet-stream",
            expires=services.settings.link_seconds,
        )
        facts = {"name": file["path"], "bytes": file["bytes"], "sha256": file["sha256"]}
        linked.append({**facts, "url": link, "expires_at": _expiry(services)})
    return linked
