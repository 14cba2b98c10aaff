"""Adds `HEAD` to `GET` routes that are no streams, and lists a path's methods for the `Allow` of a 405."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute, iter_route_contexts

from service.api.events import EventStream


class Methods:
    """The methods that an app's paths accept.

    Args:
        routers: pairs of a prefix and the router included under it.
    """

    def __init__(self, routers: Sequence[tuple[str, APIRouter]]) -> None:
        self._routes = [
            (prefix, route) for prefix, router in routers for route in router.routes if isinstance(route, APIRoute)
        ]

    def allowed(self, path: str) -> str:
        """Return the value of `Allow`; empty if none of these routers has the path."""
        found: set[str] = set()
        for prefix, route in self._routes:
            if path.startswith(prefix) and route.path_regex.match(path.removeprefix(prefix)):
                found |= _methods(route)
        return ", ".join(sorted(found))


def answer_head(app: FastAPI) -> None:
    """Answer `HEAD` like `GET`, with the same dependencies; the server omits the body."""
    for found in list(iter_route_contexts(app.routes)):
        if isinstance(route := found.original_route, APIRoute) and "HEAD" in _methods(route):
            app.add_api_route(
                str(found.path),
                route.endpoint,
                methods=["HEAD"],
                dependencies=found.dependencies,
                response_model=None,
                include_in_schema=False,
            )


def _methods(route: APIRoute) -> set[str]:
    own = set(route.methods or ())
    return own | {"HEAD"} if "GET" in own and route.response_class is not EventStream else own
