"""Thresholds of the quality checks, read from a file that a command is given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from service.core.errors import UsageError
from service.core.requests import QualityOptions


def read_limits(path: Path) -> dict[str, Any]:
    """The limits that a file's JSON object names.

    Raises:
        UsageError: it cannot be read, or with all that is wrong with its names and values.
    """
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"the limits {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"the limits {path} are not JSON: {error}") from error
    if not isinstance(given, dict):
        raise UsageError(f'the limits {path} are not a JSON object like {{"min_area_ratio": 0.1}}')
    try:
        return QualityOptions.model_validate(given).model_dump(exclude_none=True)
    except ValidationError as error:
        raise UsageError([f"{path}: {_problem(entry)}" for entry in error.errors()]) from error


def _problem(entry: Any) -> str:
    name = entry["loc"][0]
    if name not in QualityOptions.model_fields:
        return f"there is no limit {name!r}; known are {', '.join(sorted(QualityOptions.model_fields))}"
    return f"{name} is {entry['input']!r}; {entry['msg'][0].lower()}{entry['msg'][1:]}"
