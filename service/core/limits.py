"""Reads thresholds of the quality checks from a JSON file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from service.core.errors import UsageError
from service.core.options.declaration import choose, chosen
from service.core.options.quality import QualityLimits


def read_limits(path: Path) -> dict[str, Any]:
    """Read the limits in a file that contains one JSON object.

    Raises:
        UsageError: the file cannot be read, or names or values are not valid; lists all of them.
    """
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"the limits file {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"the limits file {path} is not JSON: {error}") from error
    if not isinstance(given, dict):
        raise UsageError(f'the limits file {path} must contain a JSON object, such as {{"min_area_ratio": 0.1}}')
    limits = chosen(given)
    try:
        found = choose(QualityLimits, "limits", limits)
    except UsageError as error:
        raise UsageError([f"{path}: {problem}" for problem in error.problems]) from error
    return {name: getattr(found, name) for name in limits}
