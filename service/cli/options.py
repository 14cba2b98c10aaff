"""Declares the options that several commands share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from service.core.errors import UsageError

Json = Annotated[bool, typer.Option("--json", help="One JSON object per line: progress, note, result, error.")]
Wait = Annotated[bool, typer.Option("--wait", help="Show the progress until the work has finished.")]
State = Annotated[str | None, typer.Option(help="List only this state: queued, running, succeeded, failed ...")]
Limit = Annotated[int, typer.Option(help="Length of the list, 1 to 100.")]
After = Annotated[str | None, typer.Option(help="Continue after this id, where the last list ended.")]
Name = Annotated[str, typer.Argument(metavar="ID", help="Id, as shown by create and list.")]
DataDir = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder of the stack's data; default: pairforge in your data folder."),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Further option of the API, e.g. rank=8; repeatable."),
]


Also = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=IMAGES,MASKS",
        help="A further defect type of the same product; can be repeated. Of anomalydiffusion alone.",
    ),
]


def parse_also(given: Sequence[str], first: str) -> dict[str, tuple[Path, Path]]:
    """Parse `["break=break/images,break/masks"]` to defect type → folders of images and masks.

    Args:
        first: name of the type that the command's own folders show.

    Raises:
        UsageError: naming every entry that is not of that form, and names that are there twice.
    """
    types: dict[str, tuple[Path, Path]] = {}
    problems, names = [], [first]
    for one in given:
        name, is_there, folders = (part.strip() for part in one.partition("="))
        images, comma, masks = (part.strip() for part in folders.partition(","))
        if not (is_there and comma and name and images and masks):
            problems.append(f"--also is {one!r}; it must be NAME=IMAGES,MASKS, like break=break/images,break/masks")
            continue
        names.append(name)
        types[name] = Path(images), Path(masks)
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        problems.append(f"two defect types are named {', '.join(doubled)}: give each a name of its own")
    if problems:
        raise UsageError(problems)
    return types


def parse_counts(text: str) -> dict[str, int]:
    """Parse `crack=8,break=4` to `{"crack": 8, "break": 4}`.

    Raises:
        UsageError: an entry is not NAME=N, or a name is there twice.
    """
    counts: dict[str, int] = {}
    for entry in text.split(","):
        name, sign, number = (part.strip() for part in entry.rpartition("="))
        if not (sign and name and number.isdecimal()):
            raise UsageError(f"--defects: {entry.strip()!r} is not NAME=N, as in crack=8,break=4")
        if name in counts:
            raise UsageError(f"--defects: {name} is named twice")
        counts[name] = int(number)
    return counts


def parse_candidates(text: str) -> list[int]:
    """Parse `0,4,9` to `[0, 4, 9]`.

    Raises:
        UsageError: an entry is no number.
    """
    entries = [entry.strip() for entry in text.split(",") if entry.strip()]
    if wrong := [entry for entry in entries if not entry.isdecimal()]:
        raise UsageError(f"--candidates: {', '.join(wrong)!r:.100} is no list of candidates, as in 0,4,9")
    return [int(entry) for entry in entries]


def parse_settings(given: Sequence[str]) -> dict[str, Any]:
    """Parse `["rank=8", "bcm=true"]` to `{"rank": 8, "bcm": True}`; a value that is not JSON is taken as text.

    Raises:
        UsageError: a setting has no `=`.
    """
    settings: dict[str, Any] = {}
    for item in given:
        name, sign, value = item.partition("=")
        if not sign or not name:
            raise UsageError(f"--set {item}: write NAME=VALUE, such as rank=8")
        try:
            settings[name] = json.loads(value)
        except ValueError:
            settings[name] = value
    return settings
