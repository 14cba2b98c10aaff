"""Refuses query parameters that a route does not have, so that a misspelt filter is not taken for none."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from service.api.auth import KeyId
from service.api.problems import Problem, summary


async def known_parameters_only(request: Request, _: KeyId) -> None:
    """Raise a `Problem` that names each unknown parameter and those that there are."""
    sent = request.query_params
    if not sent:
        return
    known = _parameters(request.scope["route"])
    errors = [
        {"parameter": name, "in": "query", "detail": f"{name!r:.60} is no parameter here; {_choices(known)}"}
        for name in dict.fromkeys(sent)
        if name not in known
    ]
    errors += [
        {"parameter": name, "in": "query", "detail": f"{name} is given twice: give it once"}
        for name in dict.fromkeys(sent)
        if name in known and len(sent.getlist(name)) > 1
    ]
    if errors:
        raise Problem("invalid_request", summary([error["detail"] for error in errors]), errors=errors)


def _parameters(route: APIRoute) -> frozenset[str]:
    return frozenset(_queried(route.dependant))


def _queried(dependant: Dependant) -> Iterator[str]:
    yield from (field.alias for field in dependant.query_params)
    for nested in dependant.dependencies:
        yield from _queried(nested)


def _choices(known: frozenset[str]) -> str:
    return f"there are {', '.join(sorted(known))}" if known else "there are none"
