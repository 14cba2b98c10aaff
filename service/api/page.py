"""The page: its files, served at `/`, and what a browser needs of the API beside the resources themselves.

The page is a client like any other: all that it does goes through the public API.
"""

from __future__ import annotations

import hashlib
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Depends, Request, Response
from fastapi import Path as PathParameter
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from starlette.exceptions import HTTPException

from service.api import resources
from service.api.adapters import AdapterId
from service.api.auth import KeyId
from service.api.jobs import JobId
from service.api.pairs import looked_at
from service.api.parameters import known_parameters_only
from service.api.problems import Problem, documented
from service.api.representations import samples
from service.api.services import UsedServices
from service.core.object_keys import Kind
from service.core.options.declaration import declared
from service.core.options.evaluation import EvaluationOptions
from service.core.options.methods import DEFAULT_METHOD, METHOD_OPTIONS, ON_NORMALS, TYPED
from service.core.options.quality import QualityLimits
from service.core.requests import JobRequest
from service.core.settings import Settings
from service.core.strict_json import to_json

router = APIRouter(
    dependencies=[Depends(known_parameters_only)], responses=documented("unauthorized", "forbidden", "unavailable")
)

FOLDER = Path(__file__).parent.parent / "page"

MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; img-src 'self' blob: data:"
)
"""Pictures are fetched with the key in a header, which makes them blobs; the style's own icons are data."""

HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}

METHODS_IN_WORDS = {
    "dualanodiff": "Trains a model on your photographs, which then draws new defects and their masks.",
    "anomalydiffusion": (
        "Trains a model on your photographs, which then draws the defect into masks on good parts, where you want it."
    ),
    "copy-paste": "Copies your real defects to photographs of good parts. Needs good parts; nothing is trained.",
    "perlin": "Lays noise-shaped patches on photographs of good parts. Needs good parts; nothing is trained.",
}


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    media_type: str
    etag: str


def page_router(folder: Path = FOLDER) -> APIRouter:
    """Make the routes of the page's files, which are read once and kept."""
    files = {
        path.relative_to(folder).as_posix(): _File(
            content := path.read_bytes(), MEDIA_TYPES[path.suffix], f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        )
        for path in sorted(folder.rglob("*"))
        if path.suffix in MEDIA_TYPES
    }
    own = APIRouter(include_in_schema=False)

    def answer(request: Request, name: str) -> Response:
        if (file := files.get(name)) is None:
            raise HTTPException(404)
        headers = {**HEADERS, "ETag": file.etag}
        if file.etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(file.content, media_type=file.media_type, headers=headers)

    @own.get("/")
    async def get_page(request: Request) -> Response:
        return answer(request, "index.html")

    @own.get("/page/{name:path}")
    async def get_page_file(request: Request, name: str) -> Response:
        return answer(request, name)

    return own


class _Schema(BaseModel):
    model_config = ConfigDict(extra="forbid")


class OptionDescription(_Schema):
    """An option: its JSON Schema, what it means, and its default."""

    name: str = Field(description="As requests name it.")
    help: str = Field(description="What it means, in a sentence or two.")
    value_schema: dict[str, Any] = Field(description="JSON Schema of its values.")
    default: Any = Field(description="Its default; the base model may recommend another one.")


class MethodDescription(_Schema):
    """A method, with the options that it has."""

    name: str = Field(description="As requests name it.")
    help: str = Field(description="What it does, in a sentence.")
    several_types: bool = Field(description="Whether an adapter of it can learn several defect types.")
    needs_normals: bool = Field(description="Whether an adapter of it needs photographs of good parts.")
    training: list[OptionDescription] = Field(description="Options of `POST /adapters`.")
    sampling: list[OptionDescription] = Field(description="Options of `POST /jobs`.")


class UploadLimits(_Schema):
    """What one upload may hold; sizes in bytes, pictures in pixels."""

    max_pairs: int = Field(description="Photographs with masks.")
    max_normals: int = Field(description="Photographs of good parts.")
    max_held_out: int = Field(description="Photographs kept back to measure on.")
    max_file_bytes: int = Field(description="Size of a file.")
    max_body_bytes: int = Field(description="Size of all files together.")
    max_pixels: int = Field(description="Pixels of a picture.")


class Options(_Schema):
    """What adapters and jobs may be asked for on this server."""

    default_method: str = Field(description="What is used where a request names no method.")
    methods: list[MethodDescription] = Field(description="Ways to make pairs.")
    limits: list[OptionDescription] = Field(description="Thresholds of a job's quality checks.")
    evaluation: list[OptionDescription] = Field(description="How a job's pairs are measured.")
    formats: list[str] = Field(description="Layouts that a dataset can have besides its own.")
    max_num_pairs: int = Field(description="Most pairs of a job.")
    upload: UploadLimits


def _described(declaration: Any) -> list[dict[str, Any]]:
    defaults = {field.name: field.default for field in fields(declaration) if field.default is not MISSING}
    listed = []
    for name, option in declared(declaration).items():
        schema = TypeAdapter(option.annotation).json_schema()
        if option.most_served is not None:
            schema["maximum"] = option.most_served
        default = defaults.get(name)
        listed.append({"name": name, "help": option.help, "value_schema": schema, "default": default})
    return listed


def describe_options(settings: Settings) -> dict[str, Any]:
    """Describe all options, as `Options` does, from their declarations."""
    layouts = JobRequest.model_json_schema()["properties"]["formats"]["items"]["enum"]
    names = ("max_pairs", "max_normals", "max_held_out", "max_file_bytes", "max_body_bytes", "max_pixels")
    return {
        "default_method": DEFAULT_METHOD,
        "methods": [
            {
                "name": name,
                "help": METHODS_IN_WORDS.get(name, ""),
                "several_types": name in TYPED,
                "needs_normals": name in ON_NORMALS,
                "training": _described(options.training),
                "sampling": _described(options.sampling),
            }
            for name, options in METHOD_OPTIONS.items()
        ],
        "limits": _described(QualityLimits),
        "evaluation": _described(EvaluationOptions),
        "formats": layouts,
        "max_num_pairs": settings.max_num_pairs,
        "upload": {name: getattr(settings, name) for name in names},
    }


@router.get("/options", tags=["options"], response_model=Options)
async def get_options(services: UsedServices, key_id: KeyId) -> Response:
    """Get the methods, their options with ranges, defaults and meaning, and the limits of this server."""
    content = to_json(describe_options(services.settings))
    return Response(content, media_type="application/json", headers={"Cache-Control": "private, max-age=60"})


@router.get(
    "/adapters/{adapter_id}/samples/{step}/picture",
    tags=["adapters"],
    response_class=Response,
    responses={
        200: {"content": {"image/png": {}}, "description": "A PNG."},
        **documented("adapter_not_found", "not_found", "invalid_request"),
    },
)
async def get_adapter_sample_picture(
    services: UsedServices,
    key_id: KeyId,
    adapter_id: AdapterId,
    step: Annotated[int, PathParameter(ge=0, le=9_999_999, description="One of those in `samples`.")],
) -> Response:
    """Get a sheet of sample pairs itself, where a link to the object store is of no use."""
    record = await resources.owned(services, Kind.ADAPTER, adapter_id, key_id)
    if (key := samples(record).get(str(step))) is None:
        raise Problem("not_found", f"no samples at step {step}: `samples` of the adapter lists those that exist")
    content = await to_thread.run_sync(services.storage.get, key)
    return Response(content, media_type="image/png", headers=resources.PICTURE_HEADERS)


class Evaluation(BaseModel):
    """What a job's evaluation found, as in its `dataset.json`: verdict, rows with their metrics, seeds and notes."""

    model_config = ConfigDict(extra="allow")

    verdict: dict[str, Any] = Field(
        description="How much the pairs changed pixel AP, and whether that is more than chance."
    )


@router.get(
    "/jobs/{job_id}/evaluation",
    tags=["jobs"],
    response_model=Evaluation,
    responses=documented("job_not_found", "not_found", "not_finished", "no_result"),
)
async def get_job_evaluation(request: Request, services: UsedServices, key_id: KeyId, job_id: JobId) -> Response:
    """Get the verdict on a job's pairs with the table of numbers behind it."""
    record = await resources.owned(services, Kind.JOB, job_id, key_id)
    resources.require_result(record, "evaluation")
    described = await to_thread.run_sync(looked_at(request, services).pairs.described, record)
    if (evaluation := described.get("evaluation")) is None:
        raise Problem("not_found", "this job was not evaluated: create one with `evaluation`")
    return Response(to_json(evaluation), media_type="application/json")
