"""Writes and reads JSON without `NaN` and `Infinity`, which Python's `json` writes although JSON has no such words."""

from __future__ import annotations

import json
import math
from typing import Any

import pydantic_core


def to_json(content: Any, **layout: Any) -> str:
    """Write JSON.

    Args:
        layout: options of `json.dumps`.

    Raises:
        ValueError: a number is not finite; whoever measured it must have checked it.
    """
    return json.dumps(content, allow_nan=False, **layout)


def without_nan(content: Any) -> Any:
    """Replace numbers that are not finite by None, also inside of dicts and lists: for what only reports."""
    match content:
        case float() if not math.isfinite(content):
            return None
        case dict():
            return {name: without_nan(value) for name, value in content.items()}
        case list() | tuple():
            return [without_nan(value) for value in content]
    return content


def parse(text: str | bytes) -> Any:
    """Read JSON.

    Raises:
        ValueError: it is none, or has a word such as `NaN`; says where.
    """
    return pydantic_core.from_json(text, allow_inf_nan=False)


def from_json(text: str) -> Any:
    """Read JSON; numbers that are not finite, which earlier versions stored in records, are read as None."""
    try:
        return parse(text)
    except ValueError:
        return json.loads(text, parse_constant=lambda _: None)
