"""Selects the pictures among given files, because folders and uploads contain other files, too."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

from service.core.object_keys import Upload
from service.core.uploads.decoding import Source
from service.core.uploads.formats import image_format
from service.core.uploads.names import plain_name, shown_name
from service.core.uploads.problems import FileProblem, enumerated

Files = Path | Mapping[str, Source]
"""A folder, or files by name."""

NamedSource = tuple[str, Source]

# Files with these suffixes are meant as pictures: if their content is not readable, that is a problem, not a note.
_PICTURE_SUFFIXES = {
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".tif", ".tiff", ".webp"),
    *(".gif", ".heic", ".heif", ".avif", ".jp2", ".jxl", ".svg", ".psd"),
}
_POLYGONS = "an annotation: export masks as PNG, white (255) = defect and black = good"
_NO_PICTURES = {
    **dict.fromkeys((".json", ".txt", ".xml", ".csv", ".geojson"), _POLYGONS),
    **dict.fromkeys((".npy", ".npz", ".mat", ".pt"), "an array: save it as PNG, 255 = defect"),
    **dict.fromkeys((".zip", ".tar", ".gz", ".7z", ".rar"), "an archive: unpack it"),
}
"""Other files that are found in place of masks, and what would be right."""

_CLUTTER = {"thumbs.db", "desktop.ini", "ehthumbs.db", "__macosx"}
_HIDDEN = "a hidden or system file"

_MOST_FOLDERS = 500
"""Folders looked into in search of pictures."""


class Notes:
    """Collects notes on files, and merges equal notes on several files."""

    def __init__(self) -> None:
        self._files: dict[tuple[str, str], list[str]] = defaultdict(list)
        self._left_out: dict[tuple[Upload, str], list[str]] = defaultdict(list)

    def add(self, kind: str, name: str, notes: Sequence[str]) -> None:
        for note in notes:
            self._files[kind, note].append(name)

    def leave_out(self, use: Upload, kind: str, name: str, why: str) -> None:
        """Note that a file or folder was left out."""
        self.add(kind, name, [f"left out of the {use}: {why}"])
        self._left_out[use, why].append(name)

    def left_out(self) -> list[FileProblem]:
        """List what was left out, for when the files are refused."""
        return [
            FileProblem.naming(f"left out of the {use}:", use, names, f" ({why})")
            for (use, why), names in self._left_out.items()
        ]

    def sentences(self) -> list[str]:
        return [
            f"{kind} {names[0]}: {note}" if len(names) == 1 else f"{kind}s {enumerated(names)}: {note}"
            for (kind, note), names in self._files.items()
        ]


def listed(use: Upload, files: Files, notes: Notes, problems: list[FileProblem]) -> dict[str, Source]:
    """List the pictures by name in alphabetical order, and note the files that are left out.

    All uploads count except hidden and system files, because each was sent on purpose. Of a folder, those files count
    that have the suffix of a picture or begin like one; subfolders are not searched.
    """
    if not isinstance(files, Path):
        named = {name: source for name, source in sorted(files.items()) if not _is_clutter(name)}
        for name in sorted(files.keys() - named.keys()):
            notes.leave_out(use, "file", name, _HIDDEN)
        return named
    try:
        with os.scandir(files) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        place = shown_name(str(files))
        problems.append(FileProblem.about(f"the folder of {use} {place} cannot be read: {error.strerror}"))
        return {}
    named = {}
    for entry in found:
        name = shown_name(entry.name)
        if (why := _why_left_out(use, entry)) is not None:
            notes.leave_out(use, "folder" if Path(entry.path).is_dir() else "file", name, why)
        elif name in named:
            problems.append(FileProblem.naming(f"two {use} are shown as", use, [name], ": rename one"))
        else:
            if name != entry.name:
                notes.add("file", name, ["its name is not valid UTF-8 or has control characters, %XX stands for one"])
            named[name] = Path(entry.path)
    return named


def _why_left_out(use: Upload, entry: os.DirEntry[str]) -> str | None:
    path = Path(entry.path)
    if _is_clutter(entry.name):
        return _HIDDEN
    if path.is_dir():
        return "subfolders are not searched"
    looks_right = path.suffix.lower() in _PICTURE_SUFFIXES
    if entry.is_symlink() and not path.exists():
        # A link that is meant as a picture is refused with its target when it is read.
        return None if looks_right else f"a link to {shown_name(str(path.readlink()))}, which does not exist"
    if path.is_file() and (looks_right or _begins_like_picture(path)):
        return None
    instead = _NO_PICTURES.get(path.suffix.lower()) if use is Upload.MASKS else None
    if path.suffix.lower() == ".dvc":
        instead = "a DVC pointer, fetch the picture with dvc pull"
    return f"not an image but {instead}" if instead else "not an image"


def elsewhere(use: Upload, folder: Files) -> list[FileProblem]:
    """Say in which subfolders there are pictures, for when a folder itself contains none."""
    if not isinstance(folder, Path) or has_pictures(folder):
        return []
    inside = (Path(place) for place, _, _ in islice(os.walk(folder), _MOST_FOLDERS))
    found = sorted(shown_name(str(place.relative_to(folder))) for place in inside if has_pictures(place))
    if not found:
        return []
    named = f"the folder of {use} contains no pictures, but {enumerated(found)} inside it"
    return [FileProblem.about(f"{named} {'do' if len(found) > 1 else 'does'}: give one of these")]


def has_pictures(folder: Path) -> bool:
    """Whether a folder itself contains a picture."""
    try:
        with os.scandir(folder) as entries:
            return any(_why_left_out(Upload.IMAGES, entry) is None for entry in entries)
    except OSError:
        return False


def by_stem(
    use: Upload, files: Mapping[str, Source], problems: list[FileProblem]
) -> tuple[dict[str, NamedSource], list[NamedSource]]:
    """Group files by `key_of`, which identifies them.

    Returns:
        The first file of each key; all further files, each of which is a problem.
    """
    found: dict[str, list[NamedSource]] = defaultdict(list)
    for name, source in files.items():
        found[key_of(name)].append((name, source))
    for key, alike in found.items():
        if len(alike) > 1:
            after = f" have the same name {key!r}: keep one of them, or rename the others"
            problems.append(FileProblem.naming(f"{use}", use, [name for name, _ in alike], after))
    return {key: alike[0] for key, alike in found.items()}, [file for alike in found.values() for file in alike[1:]]


def stem(name: str) -> str:
    return Path(base_name(name)).stem


def key_of(name: str) -> str:
    """Return the key that identifies a file: its stem, independent of case and of how its signs are encoded."""
    return plain_name(stem(name)).casefold()


def counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def base_name(name: str) -> str:
    """Return the last part of a name, whichever separators a browser's system uses."""
    return re.split(r"[/\\]", name)[-1]


def _is_clutter(name: str) -> bool:
    base = base_name(name)
    return base.startswith(".") or base.lower() in _CLUTTER


def _begins_like_picture(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return image_format(file.read(12)) is not None
    except OSError:
        return False
