"""Reads JSON bodies in the routes themselves, after the API key is known, so that no body of a stranger is read."""

from __future__ import annotations

from typing import Any, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from service.api.problems import Problem
from service.core.strict_json import parse, to_json

_Model = TypeVar("_Model", bound=BaseModel)


async def read_json(request: Request, model: type[_Model], example: Any) -> tuple[_Model, Any]:
    """Read and check a body; returns the model, and the body as it was sent.

    Args:
        example: what is right, for messages.

    Raises:
        Problem: it is of another media type, or no JSON.
        RequestValidationError: the model refuses it.
    """
    raw = await request.body()
    sent = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not (sent == "application/json" or (sent.startswith("application/") and sent.endswith("+json"))):
        raise Problem("unsupported_media_type", "send the request as application/json")
    right = f"send an object such as {to_json(example)}"
    try:
        body = parse(raw)
    except ValueError as error:
        detail = f"it is not JSON ({error}): {right}"
        raise Problem("invalid_request", f"the body: {detail}", errors=[{"pointer": "", "detail": detail}]) from error
    if not isinstance(body, dict):
        detail = f"it must be a JSON object: {right}"
        raise Problem("invalid_request", f"the body: {detail}", errors=[{"pointer": "", "detail": detail}])
    try:
        return model.model_validate(body), body
    except ValidationError as error:
        places = {entry["loc"] for entry in error.errors()}
        # Of a list without its faulty items, pydantic says that it is too short as well.
        within = {loc[:end] for loc in places for end in range(len(loc))}
        found = [entry for entry in error.errors() if entry["loc"] not in within]
        raise RequestValidationError([{**entry, "loc": ("body", *entry["loc"])} for entry in found]) from error


def documented_body(model: type[BaseModel], *examples: Any) -> dict[str, Any]:
    """Describe a body that `read_json` reads, for `openapi_extra`; `schemas_of` has the schemas that it refers to."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    content = {"schema": schema, "examples": {f"example-{n}": {"value": each} for n, each in enumerate(examples, 1)}}
    return {"requestBody": {"required": True, "content": {"application/json": content}}}


def schemas_of(model: type[BaseModel]) -> dict[str, Any]:
    """Return name → schema of a model and of all that it contains."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    parts: dict[str, Any] = schema.pop("$defs", {})
    return {**parts, model.__name__: schema}
