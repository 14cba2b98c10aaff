"""The route `/bases`, and checks of requests against what is known about bases."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Response

from service.api import schemas
from service.api.auth import KeyId
from service.api.parameters import known_parameters_only
from service.api.problems import documented, pointer
from service.api.services import Services, UsedServices
from service.core.bases import BaseFacts, announced
from service.core.options.methods import DEFAULT_METHOD, METHOD_OPTIONS, MethodOptions
from service.core.record import Record
from service.core.requests import AdapterRequest
from service.core.strict_json import to_json
from service.core.work import Work, sampling_work, training_work

router = APIRouter(
    prefix="/bases",
    tags=["bases"],
    dependencies=[Depends(known_parameters_only)],
    responses=documented("unauthorized", "forbidden", "unavailable"),
)


@router.get("", response_model=schemas.BaseList)
def list_bases(services: UsedServices, _: KeyId) -> Response:
    """List the base models that the workers have, with the options that they recommend.

    A base that is downloaded appears once a worker has loaded it.
    """
    data = [
        {
            "name": facts.name,
            "default": facts.name == services.settings.base,
            "resolution": facts.resolution,
            "resolution_multiple": facts.multiple,
            "training": facts.training,
            "sampling": facts.sampling,
            "recommended": {name: _recommended(facts, options) for name, options in METHOD_OPTIONS.items()},
            "license": facts.license or None,
            "method": facts.method,
        }
        for facts in announced(services.redis).values()
    ]
    return Response(to_json({"data": data}), media_type="application/json")


def _recommended(facts: BaseFacts, method: MethodOptions) -> dict[str, dict[str, Any]]:
    return {
        "training": method.recommended("training", facts.training),
        "sampling": method.recommended("sampling", facts.sampling),
    }


def unfit_for_training(services: Services, wanted: AdapterRequest) -> list[dict[str, str]]:
    """Find what speaks against a request as far as that can be said before a worker loads the base.

    Returns:
        Entries of a problem's `errors`.
    """
    known, default = announced(services.redis), services.settings.base
    name = wanted.base or default
    facts = known.get(name)
    if facts is None and known and name != default:
        choices = ", ".join(sorted({*known, default}))
        return [_error("base", f"there is no base {name!r} here: choose one of {choices}, or leave base out")]
    options = wanted.training.model_dump()
    errors = []
    resolution = options["resolution"]
    if facts is not None and resolution and resolution % facts.multiple:
        lower = max(1, resolution // facts.multiple) * facts.multiple
        detail = (
            f"resolution is {resolution}; with base {name} it must be a multiple of {facts.multiple}, such as {lower}"
        )
        errors.append(_error("resolution", detail))
    work, most = _work_of_training(wanted.method, options, facts), services.settings.max_training_work
    if work is not None and work.total > most:
        errors.append(_error("steps", _too_much(work, most)))
    return errors


def _work_of_training(method: str, options: dict[str, Any], facts: BaseFacts | None) -> Work | None:
    return training_work(method, options, facts.training if facts else {}, facts.resolution if facts else None)


def work_of_adapter(services: Services, request: dict[str, Any]) -> int:
    """The work of an adapter's request, as it is stored; 0 if its method has no model."""
    facts = announced(services.redis).get(request["base"] or services.settings.base)
    work = _work_of_training(request.get("method", DEFAULT_METHOD), request["training"], facts)
    return work.total if work is not None else 0


def work_of_job(services: Services, adapter: Record, asked: dict[str, Any]) -> Work | None:
    """The work of a job with an adapter; None if its method has no model."""
    resolved = (adapter.result or {}).get("request") or adapter.request
    facts = announced(services.redis).get(resolved.get("base") or services.settings.base)
    resolution = (resolved.get("training") or {}).get("resolution") or (facts.resolution if facts else None)
    method = resolved.get("method", DEFAULT_METHOD)
    return sampling_work(method, asked, facts.sampling if facts else {}, resolution)


def unfit_for_sampling(services: Services, work: Work | None) -> list[dict[str, str]]:
    """Find what speaks against a job of that work; entries of a problem's `errors`."""
    most = services.settings.max_sampling_work
    return [_error("num_pairs", _too_much(work, most))] if work is not None and work.total > most else []


def _too_much(work: Work, most: int) -> str:
    return f"this is too much work: {work}, and the limit of one request is {most:,}"


def _error(name: str, detail: str) -> dict[str, str]:
    return {"pointer": pointer(name), "detail": detail}
