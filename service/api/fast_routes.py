"""Calls endpoints without parsed parameters directly, past FastAPI's dependency resolution.

FastAPI matches a route twice and resolves an endpoint's parameters in a general way, which together takes longer than
the rest of a small response. Its own routes remain for the OpenAPI document, and for endpoints that take a body, a
query or a header, that have dependencies of their route, router or app, or that do not return a response themselves.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from inspect import iscoroutinefunction
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from fastapi import FastAPI, Request, Response
from fastapi.params import Depends, Path
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.routing import Match, Route
from starlette.types import Scope

_Source = Callable[[Request], Awaitable[Any]]


def install(app: FastAPI) -> None:
    """Put direct routes in front of the app's present routes."""
    app.router.routes[:0] = [
        _DirectRoute(str(found.path), described, sources)
        for found in iter_route_contexts(app.routes)
        if isinstance(described := found.original_route, APIRoute)
        and (sources := _sources(described.endpoint, found.dependencies)) is not None
    ]


class _DirectRoute(Route):
    """A route to the endpoint of `described`, under whose name it is counted."""

    def __init__(self, path: str, described: APIRoute, sources: Mapping[str, _Source]) -> None:
        endpoint: Callable[..., Awaitable[Response]] = described.endpoint

        async def answer(request: Request) -> Response:
            values = {name: await source(request) for name, source in sources.items()}
            return await endpoint(**request.path_params, **values)

        super().__init__(path, answer, methods=described.methods, include_in_schema=False)
        self._described = described

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, found = super().matches(scope)
        if match is not Match.NONE:
            found["route"] = self._described
        return match, found


def _sources(endpoint: Callable[..., Any], guards: Sequence[Depends]) -> dict[str, _Source] | None:
    """Map each parameter of an endpoint, path parameters excepted, to its source; None if it needs FastAPI.

    Args:
        guards: the dependencies of its route, its routers and the app.
    """
    if guards or not iscoroutinefunction(endpoint) or not _returns_response(endpoint):
        return None
    sources: dict[str, _Source] = {}
    for name, hint in _parameters(endpoint).items():
        if hint is Request:
            sources[name] = _itself
        elif (dependency := _dependency(hint)) is not None:
            sources[name] = dependency
        elif not _is_path_text(hint):
            return None
    return sources


def _returns_response(function: Callable[..., Any]) -> bool:
    returned = get_type_hints(function).get("return")
    return isinstance(returned, type) and issubclass(returned, Response)


def _parameters(function: Callable[..., Any]) -> dict[str, Any]:
    """Map the names of a function's parameters to their types."""
    hints = get_type_hints(function, include_extras=True)
    hints.pop("return", None)
    return hints


async def _itself(request: Request) -> Request:
    return request


def _dependency(hint: Any) -> _Source | None:
    """Return the coroutine function that FastAPI would call with nothing but the request."""
    for note in get_args(hint)[1:] if get_origin(hint) is Annotated else ():
        if isinstance(note, Depends) and iscoroutinefunction(note.dependency):
            needs = _parameters(note.dependency)
            return note.dependency if list(needs.values()) == [Request] else None
    return None


def _is_path_text(hint: Any) -> bool:
    if get_origin(hint) is not Annotated:
        return False
    kind, *notes = get_args(hint)
    return kind is str and all(isinstance(note, Path) and not note.metadata for note in notes)
