"""Which of the given files count, and under what name: folders and uploads bring more than pictures."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from service.core.decoding import Source, image_format
from service.core.file_problems import FileProblem, enumerated
from service.core.keys import Upload

Files = Path | Mapping[str, Source]
"""A folder, or files by name."""

NamedSource = tuple[str, Source]

# Files that are meant as pictures even where their content is not one we read: worth a complaint, not only a note.
_PICTURE_SUFFIXES = {
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".tif", ".tiff", ".webp"),
    *(".gif", ".heic", ".heif", ".avif", ".jp2", ".jxl", ".svg", ".psd"),
}
_CLUTTER = {"thumbs.db", "desktop.ini"}


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


def listed(use: Upload, files: Files, notes: Notes, problems: list[FileProblem]) -> dict[str, Source]:
    """The files that count, by name in alphabetical order; what is left out is noted.

    Of uploads all count but hidden and system files: each was sent on purpose. Of a folder those count that are called
    like pictures or begin like one; what is in its subfolders does not.
    """
    if not isinstance(files, Path):
        named = {name: source for name, source in sorted(files.items()) if not _is_clutter(name)}
        for name in sorted(files.keys() - named.keys()):
            notes.add("file", name, [f"left out of the {use}, a hidden or system file"])
        return named
    try:
        with os.scandir(files) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        problems.append(FileProblem.about(f"the folder of {use} {files} cannot be read: {error.strerror}"))
        return {}
    named = {}
    for entry in found:
        path = Path(entry.path)
        if _is_clutter(entry.name):
            notes.add("file", entry.name, [f"left out of the {use}, a hidden or system file"])
        elif entry.is_dir():
            notes.add("folder", entry.name, [f"left out of the {use}, subfolders are not searched"])
        elif entry.is_file() and (path.suffix.lower() in _PICTURE_SUFFIXES or _begins_like_picture(path)):
            named[entry.name] = path
        else:
            notes.add("file", entry.name, [f"left out of the {use}, not an image"])
    return named


def left_out(use: Upload, files: Files) -> list[FileProblem]:
    """Uploads that do not count: worth a complaint where too few do."""
    clutter = sorted(name for name in files if _is_clutter(name)) if not isinstance(files, Path) else []
    after = f": hidden and system files do not count among the {use}"
    return [FileProblem.naming("left out", use, clutter, after)] if clutter else []


def by_stem(
    use: Upload, files: Mapping[str, Source], problems: list[FileProblem]
) -> tuple[dict[str, NamedSource], list[NamedSource]]:
    """Name and file by what identifies them: the stem, whatever its case and its way of writing accents.

    Returns:
        The first file of each stem; the others, each of which is a problem.
    """
    found: dict[str, list[NamedSource]] = defaultdict(list)
    for name, source in files.items():
        found[unicodedata.normalize("NFC", stem(name)).casefold()].append((name, source))
    for key, alike in found.items():
        if len(alike) > 1:
            after = f" share the name {key!r}: keep one of them, or rename"
            problems.append(FileProblem.naming(f"{use}", use, [name for name, _ in alike], after))
    return {key: alike[0] for key, alike in found.items()}, [file for alike in found.values() for file in alike[1:]]


def stem(name: str) -> str:
    return Path(_base(name)).stem


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
