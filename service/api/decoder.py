"""Decodes uploaded pictures in a process of its own, so that a hostile file can harm nothing else.

Started as `python -m service.api.decoder`. It reads a request (see `Inspection`) as JSON from standard input, and
writes to standard output all problems, or the accepted pictures and notes on them. Accepted pictures are re-encoded as
PNG, so that nothing but their pixels is kept.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

if TYPE_CHECKING:
    from service.core.object_keys import Upload

from service.core.strict_json import to_json


class Inspection(TypedDict):
    """A request to decode files.

    Attributes:
        files: kind (see `Upload`) → name → path.
        defects: defect type → kind → name → path, of pairs whose types are named.
        limits: fields of `ImageLimits`.
        max_held_out: most held-out pairs.
        brightness, mask_values: the form's fields of these names.
        folder: where the pictures are written, as `{kind}/{index:03}.png`.
        memory_bytes: limit of address space.
        cpu_seconds: limit of processor time; the kernel sends SIGXCPU when it is used up.
    """

    files: dict[str, dict[str, str]]
    defects: NotRequired[dict[str, dict[str, dict[str, str]]]]
    limits: dict[str, Any]
    max_held_out: int
    brightness: NotRequired[str | None]
    mask_values: NotRequired[str | None]
    folder: str
    memory_bytes: int
    cpu_seconds: int


def main() -> None:
    inspection: Inspection = json.load(sys.stdin)
    memory, seconds = inspection["memory_bytes"], inspection["cpu_seconds"]
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    # At the hard limit the kernel sends SIGKILL, as it does when memory has run out.
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 10))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # If the machine runs out of memory, the kernel kills this process and not the server.
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    sys.stdout.write(to_json(inspect(inspection)))


def inspect(inspection: Inspection) -> dict[str, Any]:
    """Check all files, and write the pictures if none of them is faulty.

    Returns:
        `problems`: detail, brief and files (kind, name and defect type) each; `notes`; `brightness`: the range of
        training pictures with more than 8 bits; and `pictures`: by kind a list of name (the file's stem), defect type,
        width, height, bytes and sha256 of the new file.
    """
    from service.api.inspected import Inspected
    from service.core.errors import UsageError
    from service.core.object_keys import HELD_OUT, TRAINING_UPLOADS, Upload
    from service.core.uploads.decoding import ImageLimits
    from service.core.uploads.pairs import shared_reading
    from service.core.uploads.reading import Reading, chosen_reading

    def placed(named: Mapping[str, Mapping[str, str]]) -> dict[Upload, dict[str, Path]]:
        return {Upload(kind): {name: Path(path) for name, path in paths.items()} for kind, paths in named.items()}

    files = placed(inspection["files"])
    typed = {name: placed(named) for name, named in inspection.get("defects", {}).items()}
    limits = ImageLimits(**inspection["limits"])
    inspected = Inspected(Path(inspection["folder"]))
    reading = Reading()
    # The API reports mistakes in the form's fields itself.
    with suppress(UsageError):
        reading = chosen_reading(inspection.get("brightness"), inspection.get("mask_values"))
    # Nothing of the held-out pictures may decide how the others are read.
    images, masks = (_of_all_types(files, typed, kind) for kind in (Upload.IMAGES, Upload.MASKS))
    reading = shared_reading(reading, images, masks, files[Upload.NORMALS], limits)
    for name, pairs in _by_type(files, typed, Upload.IMAGES, Upload.MASKS).items():
        inspected.read_pairs(
            (Upload.IMAGES, pairs[Upload.IMAGES]), (Upload.MASKS, pairs[Upload.MASKS]), limits, reading, name
        )
    inspected.read_normals(Upload.NORMALS, files[Upload.NORMALS], limits, reading)
    if any(pairs[kind] for pairs in (files, *typed.values()) for kind in HELD_OUT.values() if kind in pairs):
        fewer = replace(limits, min_pairs=1, max_pairs=inspection["max_held_out"], recommended=None)
        image, mask, normal = (HELD_OUT[kind] for kind in TRAINING_UPLOADS)
        for name, pairs in _by_type(files, typed, image, mask).items():
            inspected.read_pairs((image, pairs[image]), (mask, pairs[mask]), fewer, reading, name)
        inspected.read_normals(normal, files[normal], fewer, reading)
        inspected.refuse_leaks()
    return {
        "problems": inspected.problems,
        "notes": inspected.notes,
        "brightness": inspected.brightness,
        "pictures": inspected.pictures,
    }


def _by_type(
    files: Mapping[Upload, Mapping[str, Path]], typed: Mapping[str, Mapping[Upload, Mapping[str, Path]]], *kinds: Upload
) -> dict[str, Mapping[Upload, Mapping[str, Path]]]:
    """Return the files of the types that name files of these kinds; those without a type where none does."""
    return {name: pairs for name, pairs in typed.items() if any(pairs[kind] for kind in kinds)} or {"": files}


def _of_all_types(
    files: Mapping[Upload, Mapping[str, Path]], typed: Mapping[str, Mapping[Upload, Mapping[str, Path]]], kind: Upload
) -> dict[str, Path]:
    """Join the files of a kind; those of several types may have the same names."""
    return {f"{name}/{file}": path for name, pairs in typed.items() for file, path in pairs[kind].items()} or dict(
        files[kind]
    )


if __name__ == "__main__":
    main()
