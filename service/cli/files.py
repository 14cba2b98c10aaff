"""Which files of a folder are uploaded."""

from __future__ import annotations

from pathlib import Path

from service.core.file_problems import FileProblem, UnusableFilesError
from service.core.keys import Upload
from service.core.listing import Notes, listed


def pictures(folder: Path | None, use: Upload) -> list[Path]:
    """What looks like a picture in a folder, by name; whether it is one, the server judges. None of no folder.

    Raises:
        UnusableFilesError: the folder cannot be read.
    """
    if folder is None:
        return []
    problems: list[FileProblem] = []
    names = listed(use, folder, Notes(), problems)
    if problems:
        raise UnusableFilesError(problems)
    return [folder / name for name in names]
