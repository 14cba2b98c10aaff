"""Which files of a folder are uploaded."""

from __future__ import annotations

from pathlib import Path

from service.core.errors import UsageError
from service.core.listing import Notes, listed


def pictures(folder: Path | None, what: str) -> list[Path]:
    """What looks like a picture in a folder, by name; whether it is one, the server judges. None of no folder.

    Raises:
        UsageError: the folder cannot be read.
    """
    if folder is None:
        return []
    problems: list[str] = []
    names = listed(what, folder, Notes(), problems)
    if problems:
        raise UsageError(problems)
    return [folder / name for name in names]
