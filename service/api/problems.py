"""Answers every error, the framework's own included, as a problem document (RFC 9457).

A problem has, besides the members of the RFC, a machine-readable `code`, the request's id, and `errors`: one entry for
each thing that is wrong, with its `detail` and the place it concerns, a `pointer` into the body (RFC 6901) or the name
of a `parameter`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError
from starlette.exceptions import HTTPException

from service.api.request_log import HEADER
from service.core.errors import TransientError
from service.core.options.declaration import reason
from service.core.storage import MissingObject
from service.core.strict_json import to_json

log = structlog.stdlib.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"

CODES: dict[str, tuple[int, str]] = {
    "bad_request": (400, "The request cannot be read"),
    "unauthorized": (401, "API key missing or not valid"),
    "forbidden": (403, "Refused: this server runs without API keys"),
    "read_only_key": (403, "This API key may only read"),
    "not_found": (404, "Nothing at this address"),
    "adapter_not_found": (404, "No adapter has this id"),
    "job_not_found": (404, "No job has this id"),
    "method_not_allowed": (405, "Method not allowed at this address"),
    "too_slow": (408, "The request took too long to arrive"),
    "already_finished": (409, "Already finished"),
    "not_finished": (409, "Not finished yet"),
    "no_result": (409, "No result"),
    "already_replaced": (409, "Another job has its replacements"),
    "adapter_not_ready": (409, "The adapter is not ready"),
    "adapter_in_use": (409, "The adapter is in use"),
    "content_too_large": (413, "The request is too large"),
    "unsupported_media_type": (415, "Unsupported media type"),
    "invalid_request": (422, "The request has mistakes"),
    "idempotency_key_reused": (422, "This Idempotency-Key was used for another request"),
    "quota_exceeded": (429, "A quota is used up"),
    "rate_limited": (429, "Too many requests in a short time"),
    "too_many_open": (429, "Too many open requests of this kind"),
    "client_gone": (499, "The client closed the connection"),  # for the metrics only: no client receives it
    "internal_error": (500, "Internal server error"),
    "unavailable": (503, "Service temporarily unavailable"),
    "spool_full": (507, "No disk space for uploads at the moment"),
}
"""Status and title of each code."""

LISTED = 100
"""Mistakes that one response lists; a last entry counts the others."""

_SUMMED_UP = 5

_SHOWN = 2_000
"""Longest text in characters; a sentence on many files with long names takes more than a thousand."""

REDIS_IS_FULL = "used memory > 'maxmemory'"
"""What Redis says at its memory limit, of a command and of one inside a script."""

RETRY_SECONDS = 5
"""`Retry-After` when Redis, the object store or the disk has failed."""


class Problem(HTTPException):
    """An error that is answered as a problem document.

    Args:
        code: a key of `CODES`.
        detail: what is wrong with this request, and what would be right.
        errors: one entry per mistake, with `detail` and `pointer` or `parameter`.
        listed: how many of them to list; more than `LISTED` where their number is bounded otherwise.
        headers: additional headers of the response.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        errors: Sequence[Mapping[str, Any]] = (),
        listed: int = LISTED,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(CODES[code][0], detail, headers)
        self.code = code
        self.errors = list(errors)
        self.listed = listed


def pointer(*parts: str | int) -> str:
    """Build a JSON Pointer (RFC 6901)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def shown(text: str, most: int = _SHOWN) -> str:
    """Shorten a text that may contain what a client has sent."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def response(request: Request, problem: Problem) -> Response:
    status, title = CODES[problem.code]
    body: dict[str, Any] = {
        "type": f"urn:pairforge:problem:{problem.code}",
        "title": title,
        "status": status,
        "detail": shown(problem.detail, (_SUMMED_UP + 1) * _SHOWN),
        "instance": shown(request.url.path),
        "code": problem.code,
        "request_id": request.state.request_id,
    }
    if problem.errors:
        body["errors"] = [_bounded(entry) for entry in problem.errors[: problem.listed]]
        if (more := len(problem.errors) - problem.listed) > 0:
            body["errors"].append({"detail": f"and {more:,} more"})
    return Response(to_json(body), status, problem.headers, MEDIA_TYPE)


def documented(*codes: str) -> dict[int | str, dict[str, Any]]:
    """Build the `responses` of an OpenAPI operation that may answer with these problems."""
    by_status: dict[int | str, list[str]] = {}
    for code in codes:
        by_status.setdefault(CODES[code][0], []).append(code)
    return {
        status: {
            "description": "; ".join(f"`{code}`: {CODES[code][1].lower()}" for code in found),
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status, found in by_status.items()
    }


def install(app: FastAPI, allowed: Callable[[str], str] = lambda _: "") -> None:
    """Install handlers that answer all errors of the app as problems.

    Args:
        allowed: returns the methods of a path; the framework knows only those of the first matching route.
    """

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        problem = error if isinstance(error, Problem) else _of_framework(error)
        if problem.code == "method_not_allowed" and (methods := allowed(request.url.path)):
            problem.headers = {"Allow": methods}
        return response(request, problem)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        errors = [located(entry["loc"], reason(entry)) for entry in error.errors()]
        details = [f"{_place(entry)}: {entry['detail']}" for entry in errors]
        return response(request, Problem("invalid_request", summary(details), errors=errors))

    async def unavailable(request: Request, error: Exception) -> Response:
        log.warning("unavailable", error=repr(error))
        return response(request, _full() if REDIS_IS_FULL in str(error) else unavailable_problem())

    app.add_exception_handler(RedisError, unavailable)
    app.add_exception_handler(OperationalError, unavailable)
    app.add_exception_handler(TransientError, unavailable)
    # The bucket or an object that a record names is missing: the store has lost data.
    app.add_exception_handler(MissingObject, unavailable)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        # The server logs the traceback, which clients must not see. This response bypasses our middleware.
        detail = "an unexpected error on the server, which was logged; try again later"
        return response(request, Problem("internal_error", detail, headers={HEADER: request.state.request_id}))


def unavailable_problem() -> Problem:
    return Problem(
        "unavailable",
        "Redis or the object store cannot be reached: try again soon; an Idempotency-Key prevents duplicates",
        headers={"Retry-After": str(RETRY_SECONDS)},
    )


def _full() -> Problem:
    return Problem(
        "unavailable",
        "Redis has no memory left for new records, which can still be read, cancelled and deleted: try again later",
        headers={"Retry-After": str(RETRY_SECONDS)},
    )


def summary(details: Sequence[str]) -> str:
    """Join all mistakes in one line, or the first few and the number of the others."""
    listed = [shown(detail) for detail in details[:_SUMMED_UP]]
    if more := len(details) - len(listed):
        listed.append(f"and {more:,} more")
    return "; ".join(listed)


def located(loc: Sequence[str | int], message: str) -> dict[str, str]:
    """Make an entry of `errors` from pydantic's location, whose first part is the part of the request."""
    where, *path = loc
    if where == "body":
        return {"pointer": pointer(*path), "detail": message}
    return {"parameter": ".".join(str(part) for part in path), "in": str(where), "detail": message}


def _place(entry: Mapping[str, str]) -> str:
    return entry.get("parameter") or entry.get("pointer") or "the body"


def _bounded(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {name: shown(value) if isinstance(value, str) else value for name, value in entry.items()}


def _of_framework(error: HTTPException) -> Problem:
    known = {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 413: "content_too_large"}
    code = known.get(error.status_code, "bad_request" if error.status_code < 500 else "internal_error")
    detail = str(error.detail)
    if detail == HTTPStatus(error.status_code).phrase:
        detail = CODES[code][1].lower()
    return Problem(code, detail, headers=error.headers)
