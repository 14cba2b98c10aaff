"""Endpoints that take nothing which has to be parsed are called by the shortest way.

FastAPI looks a route up twice and resolves what its endpoint takes in a general way; both together take longer than all
the rest of a small answer. Its own routes stay behind: for the OpenAPI document, and for endpoints that take a body, a
query or a header.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from inspect import iscoroutinefunction
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.params import Depends, Path
from fastapi.routing import APIRoute
from starlette.routing import Match, Route
from starlette.types import Scope

_Source = Callable[[Request], Awaitable[Any]]


def install(app: FastAPI, routers: Sequence[tuple[str, APIRouter]]) -> None:
    """Put the short ways before all other routes of the app.

    Args:
        routers: by the prefix that they are included with.
    """
    described = [
        (prefix, route) for prefix, router in routers for route in router.routes if isinstance(route, APIRoute)
    ]
    app.router.routes[:0] = [
        _DirectRoute(prefix, route, sources) for prefix, route in described if (sources := _sources(route)) is not None
    ]


class _DirectRoute(Route):
    """As `described`, and counted as it."""

    def __init__(self, prefix: str, described: APIRoute, sources: Mapping[str, _Source]) -> None:
        endpoint: Callable[..., Awaitable[Response]] = described.endpoint

        async def answer(request: Request) -> Response:
            values = {name: await source(request) for name, source in sources.items()}
            return await endpoint(**request.path_params, **values)

        super().__init__(f"{prefix}{described.path}", answer, methods=described.methods, include_in_schema=False)
        self._described = described

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, found = super().matches(scope)
        if match is not Match.NONE:
            found["route"] = self._described
        return match, found


def _sources(route: APIRoute) -> dict[str, _Source] | None:
    """Where what the endpoint takes comes from, but for parts of the path; None where something has to be parsed."""
    if route.dependencies or not iscoroutinefunction(route.endpoint):
        return None
    sources: dict[str, _Source] = {}
    for name, taken in _taken(route.endpoint).items():
        if taken is Request:
            sources[name] = _itself
        elif (dependency := _dependency(taken)) is not None:
            sources[name] = dependency
        elif not _is_text_of_path(taken):
            return None
    return sources


def _taken(function: Callable[..., Any]) -> dict[str, Any]:
    """The parameters of a function with their types."""
    hints = get_type_hints(function, include_extras=True)
    hints.pop("return", None)
    return hints


async def _itself(request: Request) -> Request:
    return request


def _dependency(taken: Any) -> _Source | None:
    """The coroutine function that FastAPI would call with the request only."""
    for note in get_args(taken)[1:] if get_origin(taken) is Annotated else ():
        if isinstance(note, Depends) and iscoroutinefunction(note.dependency):
            needs = _taken(note.dependency)
            return note.dependency if list(needs.values()) == [Request] else None
    return None


def _is_text_of_path(taken: Any) -> bool:
    if get_origin(taken) is not Annotated:
        return False
    kind, *notes = get_args(taken)
    return kind is str and all(isinstance(note, Path) and not note.metadata for note in notes)
