"""Routes under `/adapters`: training on a few pairs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal

from anyio import to_thread
from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import TypeAdapter, ValidationError

from service.api import events, resources, schemas
from service.api.auth import KeyId
from service.api.bases import unfit_for_training, work_of_adapter
from service.api.decoding import Picture, Pictures, Refused, declared, decode_uploads
from service.api.parameters import known_parameters_only
from service.api.problems import Problem, documented, pointer, summary
from service.api.representations import rfc3339, samples
from service.api.services import Services, UsedServices
from service.api.submission import Submission, kept_if_created, replayed, require_quota, submit
from service.api.uploads import HELD_OUT_PAIRS, KINDS, PAIRS, Form, kind_and_defect, receive_form
from service.core import object_keys
from service.core.errors import UsageError
from service.core.object_keys import Kind, Upload
from service.core.options.declaration import reason
from service.core.options.methods import TYPED, own_options, refusals
from service.core.record import Record
from service.core.records.errors import AdapterInUse
from service.core.requests import AdapterRequest, Phrase, TrainingOptions, unset
from service.core.storage import StorageError
from service.core.strict_json import parse, to_json
from service.core.uploads.decoding import ImageLimits
from service.core.uploads.formats import FORMATS
from service.core.uploads.reading import chosen_reading
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

_LIMITS = ImageLimits()
_KINDS = (
    f"{FORMATS}, at most {_LIMITS.max_side} pixels a side and {_LIMITS.max_pixels / 1e6:.1f} megapixels each, unless "
    "the server is set otherwise"
)
_NAME: TypeAdapter[str] = TypeAdapter(Phrase)

_FILES = {"type": "array", "items": {"type": "string", "format": "binary"}}

_READING = {
    "brightness": "`LOW:HIGH`: the values that become black and white in pictures with more than 8 bits.",
    "mask_values": "Mask values or colours that mark the defect, such as `1,2` or `#ff0000`.",
}
"""Fields that say how to read the files; a missing one is derived from the files."""


def _form_schema() -> dict[str, Any]:
    """Build the form schema of `POST /adapters`: files, request fields and training options on one level."""
    fields: dict[str, Any] = {}
    for model in (AdapterRequest, TrainingOptions):
        fields |= model.model_json_schema()["properties"]
    fields["training"] = {
        "type": "string",
        "description": "Training options as a JSON object, as in an adapter's `request`, or each in an own field.",
    }
    fields["metadata"] = {"type": "string", "description": fields["metadata"]["description"] + " As a JSON object."}
    return {
        "type": "object",
        "required": ["name"],
        "patternProperties": {
            r"^images\[[^\[\]]+\]$": {**_FILES, "description": "Photographs of a defect type, as in `images[crack]`."},
            r"^masks\[[^\[\]]+\]$": {**_FILES, "description": "Their masks, as in `masks[crack]`."},
            r"^held_out_images\[[^\[\]]+\]$": {
                **_FILES,
                "description": "Held-out photographs of a defect type that is trained on, as in "
                "`held_out_images[crack]`; every type needs some.",
            },
            r"^held_out_masks\[[^\[\]]+\]$": {
                **_FILES,
                "description": "Their masks, as in `held_out_masks[crack]`.",
            },
        },
        "properties": {
            "images[]": {
                **_FILES,
                "description": f"Photographs of the defect: {_KINDS}. Of several defect types of one product, name the "
                "type in the field: `images[crack]`, `images[break]`.",
            },
            "masks[]": {
                **_FILES,
                "description": "The images' masks, with the same file names, with or without a suffix such as `_mask` "
                "or `_mask_0`; several of one image are joined. White marks the defect. Of several types: "
                "`masks[crack]`, `masks[break]`.",
            },
            "normals[]": {
                **_FILES,
                "description": "Photographs of defect-free parts, used for training and as backgrounds.",
            },
            "held_out_images[]": {
                **_FILES,
                "description": "Photographs of the defect on other parts, which no training sees; jobs are evaluated "
                "on them. Each counts as one part: hold out as many photographs of every part. Of several types: "
                "`held_out_images[crack]`, `held_out_images[break]`, for numbers of each type and of how well they "
                "are told apart; without the names all types are measured together.",
            },
            "held_out_masks[]": {
                **_FILES,
                "description": "One mask per held-out image, with the same file name. Of several types: "
                "`held_out_masks[crack]`, `held_out_masks[break]`.",
            },
            "held_out_normals[]": {**_FILES, "description": "Photographs of further defect-free parts, likewise."},
            **{name: {"type": "string", "description": text} for name, text in _READING.items()},
            **fields,
        },
    }


_SCRATCHES = {
    "images[]": ["scratch_1.png", "scratch_2.png"],
    "masks[]": ["scratch_1.png", "scratch_2.png"],
    "name": "scratches",
}

_EXAMPLES = {
    "dualanodiff": {"summary": "Train a model", "value": {**_SCRATCHES, "steps": 1000}},
    "anomalydiffusion": {
        "summary": "Learn a defect that is then drawn into masks, where you want it on your good parts",
        "value": {**_SCRATCHES, "normals[]": ["good_1.png", "good_2.png"], "method": "anomalydiffusion"},
    },
    "defect-types": {
        "summary": "Learn several defect types of one product; jobs say how many pairs of each they want",
        "value": {
            "images[crack]": ["001.png", "002.png"],
            "masks[crack]": ["001.png", "002.png"],
            "images[break]": ["001.png", "005.png"],
            "masks[break]": ["001.png", "005.png"],
            "normals[]": ["good_1.png", "good_2.png"],
            "name": "tiles",
            "method": "anomalydiffusion",
        },
    },
    "held-out": {
        "summary": "Train a model, and keep photographs back to measure what its pairs are worth",
        "value": {
            **_SCRATCHES,
            "held_out_images[]": ["scratch_3.png", "scratch_4.png"],
            "held_out_masks[]": ["scratch_3.png", "scratch_4.png"],
            "held_out_normals[]": ["good_2.png"],
        },
    },
    "copy-paste": {
        "summary": "Keep the real defects, to copy them",
        "value": {**_SCRATCHES, "normals[]": ["good_1.png"], "method": "copy-paste", "flip_vertical": False},
    },
}

_FORM = {
    "requestBody": {
        "required": True,
        "content": {"multipart/form-data": {"schema": _form_schema(), "examples": _EXAMPLES}},
    }
}


@router.post(
    "",
    status_code=202,
    response_description="The record was created, or was before by the same request.",
    response_model=schemas.Adapter,
    openapi_extra=_FORM,
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
        wanted, errors = _wanted(form)
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


def _wanted(form: Form) -> tuple[AdapterRequest | None, list[dict[str, Any]]]:
    """Parse the form's fields; returns the request, or None, and all mistakes found in the form."""
    own = AdapterRequest.model_fields.keys() - {"training"}
    values: dict[str, Any] = {name: text for name, text in form.fields.items() if name in own}
    errors: list[dict[str, Any]] = list(form.errors)
    options = {name: text for name, text in form.fields.items() if name not in own | _READING.keys()}
    for name in [name for name in options if kind_and_defect(name)[0] in KINDS]:
        text = options.pop(name)
        detail = (
            f"{name} is the text {text!r:.60} and not a file: with curl, write an @ before the file's name, "
            f"as in -F '{name}=@scratch.png'"
        )
        errors.append({"pointer": pointer(name), "detail": detail})
    values["training"] = _training(options, errors)
    for name in _READING.keys() & form.fields.keys():
        try:
            chosen_reading(**{**dict.fromkeys(_READING), name: form.fields[name]})
        except UsageError as error:
            errors += [{"pointer": pointer(name), "detail": problem} for problem in error.problems]
    try:
        wanted = AdapterRequest.model_validate(values)
    except ValidationError as error:
        for entry in error.errors():
            name = str(entry["loc"][-1 if entry["loc"][0] == "training" else 0])
            errors.append({"pointer": pointer(name), "detail": f"{name}: {reason(entry)}"})
        return None, errors
    refused = refusals("training", wanted.method, wanted.training.model_dump())
    errors += [{"pointer": pointer(name), "detail": detail} for name, detail in refused.items()]
    errors += _unfit_types(form, wanted.method)
    if types := form.types(PAIRS):
        wanted = wanted.model_copy(update={"defect": ", ".join(types)})
    return wanted, errors


def _unfit_types(form: Form, method: str) -> list[dict[str, Any]]:
    """Find what is wrong with the defect types that a form names."""
    types, errors = form.types(PAIRS), []
    for name in form.types(PAIRS + HELD_OUT_PAIRS):
        try:
            _NAME.validate_python(name)
        except ValidationError:
            detail = f"{name!r:.100} is no name of a defect type: at most 80 printable characters"
            errors.append({"pointer": pointer("images", name), "detail": detail})
    if types and (form.of(Upload.IMAGES) or form.of(Upload.MASKS)):
        detail = (
            f"some files name a defect type ({', '.join(types)}) and some do not: name the type of all, as in "
            f"images[{types[0]}], or of none"
        )
        errors.append({"pointer": pointer("images"), "detail": detail})
    if types and "defect" in form.fields:
        detail = f"defect names the one type of an upload, and the files name theirs, {', '.join(types)}: leave it out"
        errors.append({"pointer": pointer("defect"), "detail": detail})
    if len(types) > 1 and method not in TYPED:
        detail = (
            f"{method} learns one defect type per adapter, and these are {len(types)} ({', '.join(types)}): choose "
            f"{' or '.join(sorted(TYPED))}, or send each type as an adapter of its own"
        )
        errors.append({"pointer": pointer("method"), "detail": detail})
    return errors + _unfit_held_out_types(form, types)


def _unfit_held_out_types(form: Form, types: list[str]) -> list[dict[str, Any]]:
    """Find what is wrong with the types of held-out files: all of them name theirs, and each type has some, or none."""
    named, errors = form.types(HELD_OUT_PAIRS), []
    if not named:
        return []
    if unknown := [name for name in named if name not in types]:
        detail = (
            f"nothing to train on shows {', '.join(unknown)}, of which photographs are held out: give "
            f"images[{unknown[0]}] and its masks, or hold out the types that are trained on"
        )
        errors.append({"pointer": pointer(Upload.HELD_OUT_IMAGES, unknown[0]), "detail": detail})
    if any(form.of(kind) for kind in HELD_OUT_PAIRS):
        detail = "some held-out files name a defect type and some do not: name the type of all, or of none"
        errors.append({"pointer": pointer(Upload.HELD_OUT_IMAGES), "detail": detail})
    if missing := [name for name in types if name not in named]:
        detail = (
            f"no photograph of {', '.join(missing)} is held out: give held_out_images[{missing[0]}] and its masks, or "
            "held_out_images[] for all types together"
        )
        errors.append({"pointer": pointer(Upload.HELD_OUT_IMAGES), "detail": detail})
    return errors


def _training(options: dict[str, str], errors: list[dict[str, Any]]) -> dict[str, Any]:
    """Join the options that are fields of their own with those in `training`, which is as an adapter shows them."""
    text = options.pop("training", "{}")
    try:
        nested = parse(text)
    except ValueError:
        nested = None
    if not isinstance(nested, dict):
        detail = f'training is {text!r:.60}; it must be a JSON object such as {{"steps": 1000}}'
        errors.append({"pointer": pointer("training"), "detail": detail})
        return dict(options)
    twice = nested.keys() & options.keys()
    errors += [{"pointer": pointer(name), "detail": f"{name} is given twice: give it once"} for name in sorted(twice)]
    return {**nested, **options}


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
