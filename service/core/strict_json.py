"""Writes and reads JSON without `NaN` and `Infinity`, which Python's `json` writes although JSON has no such words."""

from __future__ import annotations

import json
from typing import Any

from pydantic_core import from_json as parse


def to_json(content: Any, **layout: Any) -> str:
    """Write JSON.

    Args:
        layout: options of `json.dumps`.

    Raises:
        ValueError: a number is not finite; whoever measured it must have checked it.
    """
    return json.dumps(content, allow_nan=False, **layout)


def from_json(text: str) -> Any:
    """Read JSON; numbers that are not finite, which earlier versions stored in records, are read as None."""
    try:
        return parse(text, allow_inf_nan=False)
    except ValueError:
        return json.loads(text, parse_constant=lambda _: None)
