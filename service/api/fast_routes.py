"""Endpoints that take nothing which has to be parsed are called by the shortest way.

FastAPI looks a route up twice and resolves what its endpoint takes in a general way; both together take longer than all
the rest of a small answer. Its own routes stay behind: for the OpenAPI document, and for endpoints that take a body, a
query or a header, that are guarded by dependencies of their route, router or app, or whose answer has to be made of
what they return.
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
    """Put the short ways before all routes that the app has by now."""
    app.router.routes[:0] = [
        _DirectRoute(str(found.path), described, sources)
        for found in iter_route_contexts(app.routes)
        if isinstance(described := found.original_route, APIRoute)
        and (sources := _sources(described.endpoint, found.dependencies)) is not None
    ]


class _DirectRoute(Route):
    """As `described`, and counted as it."""

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
    """Where what the endpoint takes comes from, but for parts of the path; None where the short way would not do.

    Args:
        guards: the dependencies of its route, its routers and the app.
    """
    if guards or not iscoroutinefunction(endpoint) or not _answers(endpoint):
        return None
    sources: dict[str, _Source] = {}
    for name, taken in _taken(endpoint).items():
        if taken is Request:
            sources[name] = _itself
        elif (dependency := _dependency(taken)) is not None:
            sources[name] = dependency
        elif not _is_text_of_path(taken):
            return None
    return sources


def _answers(function: Callable[..., Any]) -> bool:
    """Whether what the function returns is an answer as it is."""
    returned = get_type_hints(function).get("return")
    return isinstance(returned, type) and issubclass(returned, Response)


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
