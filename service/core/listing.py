"""Which of the given files count, and under what name: folders and uploads bring more than pictures."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from service.core.decoding import Source, image_format

Files = Path | Mapping[str, Source]
"""A folder, or files by name."""

# Files that are meant as pictures even where their content is not one we read: worth a complaint, not only a note.
_PICTURE_SUFFIXES = {
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".tif", ".tiff", ".webp"),
    *(".gif", ".heic", ".heif", ".avif", ".jp2", ".jxl", ".svg", ".psd"),
}
_CLUTTER = {"thumbs.db", "desktop.ini"}
_NAMES_SHOWN = 5


class Notes:
    """Notes on files, told once for all files that share one."""

    def __init__(self) -> None:
        self._files: dict[tuple[str, str], list[str]] = defaultdict(list)

    def add(self, kind: str, name: str, notes: Sequence[str]) -> None:
        for note in notes:
            self._files[kind, note].append(name)

    def sentences(self) -> list[str]:
        return [
            f"{kind} {names[0]}: {note}" if len(names) == 1 else f"{kind}s {enumerated(names)}: {note}"
            for (kind, note), names in self._files.items()
        ]


def listed(what: str, files: Files, notes: Notes, problems: list[str]) -> dict[str, Source]:
    """The files that count, by name in alphabetical order; what is left out is noted.

    Of uploads all count but hidden and system files: each was sent on purpose. Of a folder those count that are called
    like pictures or begin like one; what is in its subfolders does not.
    """
    if not isinstance(files, Path):
        named = {name: source for name, source in sorted(files.items()) if not _is_clutter(name)}
        for name in sorted(files.keys() - named.keys()):
            notes.add("file", name, [f"left out of the {what}, a hidden or system file"])
        return named
    try:
        with os.scandir(files) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        problems.append(f"the folder of {what} {files} cannot be read: {error.strerror}")
        return {}
    named = {}
    for entry in found:
        path = Path(entry.path)
        if _is_clutter(entry.name):
            notes.add("file", entry.name, [f"left out of the {what}, a hidden or system file"])
        elif entry.is_dir():
            notes.add("folder", entry.name, [f"left out of the {what}, subfolders are not searched"])
        elif entry.is_file() and (path.suffix.lower() in _PICTURE_SUFFIXES or _begins_like_picture(path)):
            named[entry.name] = path
        else:
            notes.add("file", entry.name, [f"left out of the {what}, not an image"])
    return named


def by_stem(kind: str, files: Mapping[str, Source], problems: list[str]) -> dict[str, tuple[str, Source]]:
    """Name and file by what identifies them: the stem, whatever its case and its way of writing accents."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in files:
        found[unicodedata.normalize("NFC", stem(name)).casefold()].append(name)
    problems += [
        f"{kind}s {enumerated(names)} share the name {key!r}: keep one of them, or rename"
        for key, names in found.items()
        if len(names) > 1
    ]
    return {key: (names[0], files[names[0]]) for key, names in found.items()}


def stem(name: str) -> str:
    return Path(_base(name)).stem


def enumerated(names: Sequence[str]) -> str:
    """`a, b and c`, or the first few and how many more."""
    if len(names) > _NAMES_SHOWN + 1:
        return f"{', '.join(names[:_NAMES_SHOWN])} and {len(names) - _NAMES_SHOWN} more"
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _base(name: str) -> str:
    """The last part of a name, whichever system's separators a browser left in it."""
    return re.split(r"[/\\]", name)[-1]


def _is_clutter(name: str) -> bool:
    base = _base(name)
    return base.startswith(".") or base.lower() in _CLUTTER


def _begins_like_picture(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return image_format(file.read(12)) is not None
    except OSError:
        return False
