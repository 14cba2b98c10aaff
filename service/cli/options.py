"""Options that several commands share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from service.core.errors import UsageError

Json = Annotated[bool, typer.Option("--json", help="One JSON object per line: progress, note, result, error.")]
Wait = Annotated[bool, typer.Option("--wait", help="Show the progress until it has finished.")]
State = Annotated[str | None, typer.Option(help="Only those that are queued, running, succeeded, failed ...")]
Limit = Annotated[int, typer.Option(help="How many at most, 1 to 100.")]
After = Annotated[str | None, typer.Option(help="Go on where a list ended.")]
Name = Annotated[str, typer.Argument(metavar="ID", help="As create and list show it.")]
DataDir = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder of all that is kept; default: pairforge in your data folder."),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Any further option of the API, e.g. rank=8; repeatable."),
]


def parse_settings(given: Sequence[str]) -> dict[str, Any]:
    """`["rank=8", "bcm=true"]` → `{"rank": 8, "bcm": True}`; what is no JSON value is a word.

    Raises:
        UsageError: naming what has no `=`.
    """
    settings: dict[str, Any] = {}
    for item in given:
        name, sign, value = item.partition("=")
        if not sign or not name:
            raise UsageError(f"--set {item}: it must be like rank=8")
        try:
            settings[name] = json.loads(value)
        except ValueError:
            settings[name] = value
    return settings
