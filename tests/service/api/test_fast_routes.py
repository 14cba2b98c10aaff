"""The short way to an endpoint answers as FastAPI's own would."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import httpx2
import pytest
from fastapi import APIRouter, Depends, FastAPI, Path, Query, Request, Response
from fastapi.params import Depends as DependsOn
from fastapi.testclient import TestClient
from starlette.routing import Match

from service.api import fast_routes, problems
from service.api.methods import Methods, answer_head
from service.api.metrics import Metrics
from service.api.request_log import Observed
from service.core.settings import Settings
from service.main import create_app


async def _asker(request: Request) -> str:
    if (name := request.headers.get("x-name")) is None:
        raise problems.Problem("unauthorized", "no name")
    return name


async def _long_name(name: Annotated[str, Depends(_asker)]) -> str:
    return name * 2


router = APIRouter(prefix="/things")


@router.get("/{thing}")
async def of_path(request: Request, asker: Annotated[str, Depends(_asker)], thing: Annotated[str, Path()]) -> Response:
    return Response(f"{request.method} {asker} {thing}")


@router.delete("/{thing}")
async def remove(thing: Annotated[str, Path(description="a name")]) -> Response:
    return Response(status_code=204)


@router.get("/{thing}/number/{number}")
async def parsed(thing: Annotated[str, Path()], number: Annotated[int, Path()]) -> Response:
    return Response(str(number))


@router.get("/bounded/{text}")
async def bounded(text: Annotated[str, Path(max_length=2)]) -> Response:
    return Response(text)


@router.get("/query/of")
async def query(of: Annotated[str, Query()] = "none") -> Response:
    return Response(of)


@router.get("/nested/name")
async def nested(name: Annotated[str, Depends(_long_name)]) -> Response:
    return Response(name)


@router.get("/{thing}/thread")
def in_thread(thing: Annotated[str, Path()]) -> Response:
    return Response(thing)


@router.get("/guarded/all", dependencies=[Depends(_asker)])
async def guarded() -> Response:
    return Response("seen")


@router.get("/named/parts")
async def to_be_rendered() -> dict[str, str]:
    return {"a": "b"}


ASKED = [
    ("GET", "/v1/things/a%20b", {"x-name": "me"}, 200),
    ("HEAD", "/v1/things/a", {"x-name": "me"}, 200),
    ("GET", "/v1/things/a", {}, 401),
    ("POST", "/v1/things/a", {"x-name": "me"}, 405),
    ("DELETE", "/v1/things/a", {}, 204),
    ("GET", "/v1/things/a/number/7", {}, 200),
    ("GET", "/v1/things/a/number/x", {}, 422),
    ("GET", "/v1/things/bounded/abc", {}, 422),
    ("GET", "/v1/things/query/of?of=x", {}, 200),
    ("GET", "/v1/things/nested/name", {"x-name": "me"}, 200),
    ("GET", "/v1/things/a/thread", {}, 200),
    ("GET", "/v1/things/guarded/all", {}, 401),
    ("HEAD", "/v1/things/guarded/all", {}, 401),
    ("GET", "/v1/things/guarded/all", {"x-name": "me"}, 200),
    ("GET", "/v1/things/named/parts", {}, 200),
    ("GET", "/v1/things", {}, 404),
]


def client(*, shortened: bool, of_app: Sequence[DependsOn] = (), of_router: Sequence[DependsOn] = ()) -> TestClient:
    app = FastAPI(dependencies=of_app)
    app.add_middleware(Observed, metrics=Metrics(Settings()))
    problems.install(app, Methods([("/v1", router)]).allowed)
    app.include_router(router, prefix="/v1", dependencies=of_router)
    if shortened:
        fast_routes.install(app)
    answer_head(app)
    return TestClient(app)


def answered(answer: httpx2.Response) -> tuple[object, ...]:
    told = answer.text.replace(answer.headers["x-request-id"], "")
    own = {name: value for name, value in answer.headers.items() if name != "x-request-id"}
    return answer.status_code, own, told


@pytest.mark.parametrize(("method", "path", "headers", "status"), ASKED)
def test_both_ways_answer_the_same(method: str, path: str, headers: dict[str, str], status: int) -> None:
    short, long = (client(shortened=shortened).request(method, path, headers=headers) for shortened in (True, False))
    assert answered(short) == answered(long)
    assert short.status_code == status


@pytest.mark.parametrize("guards", [{"of_app": [Depends(_asker)]}, {"of_router": [Depends(_asker)]}])
@pytest.mark.parametrize(("method", "path"), [("DELETE", "/v1/things/a"), ("HEAD", "/v1/things/query/of")])
def test_guards_of_app_and_router_are_asked(guards: dict[str, list[DependsOn]], method: str, path: str) -> None:
    guarded = client(shortened=True, **guards)
    assert guarded.request(method, path).status_code == 401
    assert guarded.request(method, path, headers={"x-name": "me"}).is_success


@pytest.mark.parametrize(
    ("method", "path", "short"),
    [
        ("GET", "/v1/jobs/x", True),
        ("HEAD", "/jobs/x", True),
        ("GET", "/v1/adapters/x", True),
        ("POST", "/v1/jobs/x/cancel", True),
        ("GET", "/healthz", True),
        ("GET", "/v1/jobs", False),
        ("POST", "/v1/jobs", False),
        ("GET", "/v1/jobs/x/events", False),
        ("GET", "/v1/adapters/x/samples/1", False),
    ],
)
def test_what_needs_no_parsing_takes_the_short_way(method: str, path: str, short: bool) -> None:  # noqa: FBT001
    scope = {"type": "http", "method": method, "path": path, "headers": []}
    chosen = next(route for route in create_app(Settings()).routes if route.matches(dict(scope))[0] is Match.FULL)
    assert (type(chosen).__module__ == fast_routes.__name__) is short
