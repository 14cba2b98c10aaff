"""Which methods an address takes: `HEAD` wherever `GET` ends soon, and all of them in the `Allow` of a 405."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute, iter_route_contexts

from service.api.events import EventStream


class Methods:
    """The methods of an app's addresses.

    Args:
        routers: by the prefix that they are included with.
    """

    def __init__(self, routers: Sequence[tuple[str, APIRouter]]) -> None:
        self._routes = [
            (prefix, route) for prefix, router in routers for route in router.routes if isinstance(route, APIRoute)
        ]

    def allowed(self, path: str) -> str:
        """The value of `Allow`, empty where the path is none of these routers'."""
        found: set[str] = set()
        for prefix, route in self._routes:
            if path.startswith(prefix) and route.path_regex.match(path.removeprefix(prefix)):
                found |= _methods(route)
        return ", ".join(sorted(found))


def answer_head(app: FastAPI) -> None:
    """Answer `HEAD` as `GET`, with its guards; the server leaves the body out."""
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
