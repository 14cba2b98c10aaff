"""Assembles the API: `uvicorn --factory service.main:create_app`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.middleware.cors import CORSMiddleware

from service.api import (
    adapters,
    bases,
    good_parts,
    health,
    jobs,
    page,
    pairs,
    problems,
    replacements,
    schemas,
    selections,
)
from service.api.auth import SCHEMES, KeyCache
from service.api.body_limit import BodyLimit
from service.api.docs import serve_docs
from service.api.json_body import schemas_of
from service.api.methods import Methods, answer_head
from service.api.metrics import Metrics, RedisCollector
from service.api.replacements import ReplacementRequest
from service.api.request_log import Observed
from service.api.selections import SelectionRequest
from service.api.services import running_services
from service.core.logs import configure_logs
from service.core.requests import JobRequest
from service.core.settings import Settings, load_settings

ROUTERS = tuple(module.router for module in (jobs, adapters, good_parts, bases, pairs, selections, replacements, page))
"""Served under `/v1`, and as they are."""

DESCRIPTION = """Few-shot generation of image-mask pairs of manufacturing defects.

Train an adapter on a few images of a defect and their masks (`POST /v1/adapters`), wait until it has succeeded,
generate pairs with it (`POST /v1/jobs`), and download the dataset.
"""


def create_app(settings: Settings | None = None) -> FastAPI:
    """Create the app.

    Args:
        settings: None if the app has the process to itself: it then reads the environment and configures the logs.
    """
    own_process = settings is None
    chosen = settings or load_settings()
    if own_process:
        configure_logs(chosen)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with running_services(chosen, app.state.metrics) as services:
            app.state.services = services
            app.state.readiness = health.Readiness(services)
            collector = RedisCollector(chosen)
            app.state.metrics.registry.register(collector)
            yield
            app.state.metrics.registry.unregister(collector)
            collector.close()

    app = FastAPI(
        title="PairForge",
        version="1",
        description=DESCRIPTION,
        lifespan=lifespan,
        generate_unique_id_function=_operation_id,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
    )
    app.state.keys = KeyCache()
    app.state.metrics = Metrics(chosen)
    unversioned = [health.router, *([page.page_router()] if chosen.page else [])]
    versioned = [(prefix, router) for router in ROUTERS for prefix in ("/v1", "")]
    problems.install(app, Methods([*versioned, *(("", router) for router in unversioned)]).allowed)
    for router in unversioned:
        app.include_router(router)
    for router in ROUTERS:
        app.include_router(router, prefix="/v1")
        app.include_router(router, include_in_schema=False)
    serve_docs(app)
    answer_head(app)
    app.add_middleware(BodyLimit, settings=chosen)
    if origins := [origin.strip() for origin in chosen.cors_origins.split(",") if origin.strip()]:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "HEAD", "POST", "DELETE"],
            allow_headers=[
                "Authorization",
                "X-API-Key",
                "Content-Type",
                "Idempotency-Key",
                "If-None-Match",
                "Last-Event-ID",
            ],
            expose_headers=["ETag", "Location", "Retry-After", "X-Request-Id", "Idempotency-Replayed"],
        )
    app.add_middleware(Observed, metrics=app.state.metrics)
    _describe(app, chosen.max_num_pairs)
    return app


def _operation_id(route: APIRoute) -> str:
    return route.name


def _describe(app: FastAPI, most_pairs: int) -> None:
    """Add problem documents and API keys to the OpenAPI document, which FastAPI does not derive from the routes."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        models = document["components"]["schemas"]
        if "Problem" not in models:
            own = schemas.Problem.model_json_schema(ref_template="#/components/schemas/{model}")
            models |= own.pop("$defs")
            models |= schemas_of(JobRequest) | schemas_of(SelectionRequest) | schemas_of(ReplacementRequest)
            models |= schemas_of(schemas.ProgressEvent)
            models["Problem"] = own
            models["JobRequest"]["properties"]["num_pairs"]["maximum"] = most_pairs
            document["components"]["securitySchemes"] = SCHEMES
            for path, operations in document["paths"].items():
                for operation in operations.values():
                    _only_problems(operation)
                    _left_out_not_null(operation)
                    if path.startswith("/v1/"):
                        operation["security"] = [{name: []} for name in SCHEMES]
            for unused in ("HTTPValidationError", "ValidationError"):
                models.pop(unused, None)
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _only_problems(operation: dict[str, Any]) -> None:
    """Document a 422 as a problem, in place of FastAPI's own schema."""
    refusal = operation["responses"].get("422")
    if refusal is not None and problems.MEDIA_TYPE not in refusal["content"]:
        operation["responses"]["422"] = problems.documented("invalid_request")[422]


def _left_out_not_null(operation: dict[str, Any]) -> None:
    """Document an optional parameter by its own type: it is left out, and never null."""
    for parameter in operation.get("parameters", ()):
        kinds = [kind for kind in parameter["schema"].pop("anyOf", ()) if kind != {"type": "null"}]
        for kind in kinds:
            parameter["schema"] |= kind
