"""Decodes uploaded pictures in a process of its own, so that a hostile file can harm nothing else.

Started as `python -m service.api.decoder`. It reads a request (see `Inspection`) as JSON from standard input, and
writes to standard output all problems, or the accepted pictures and notes on them. Accepted pictures are re-encoded as
PNG, so that nothing but their pixels is kept.
"""

from __future__ import annotations

import hashlib
import json
import resource
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NotRequired, TypedDict


class Inspection(TypedDict):
    """A request to decode files.

    Attributes:
        files: kind (images, masks, normals) → name → path.
        limits: fields of `ImageLimits`.
        brightness, mask_values: the form's fields of these names.
        folder: where the pictures are written, as `{kind}/{index:03}.png`.
        memory_bytes: limit of address space.
        cpu_seconds: limit of processor time; the kernel sends SIGXCPU when it is used up.
    """

    files: dict[str, dict[str, str]]
    limits: dict[str, int]
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
    json.dump(inspect(inspection), sys.stdout)


def inspect(inspection: Inspection) -> dict[str, Any]:
    """Check all files, and write the pictures if none of them is faulty.

    Returns:
        `problems`: the fields of a `FileProblem` each; `notes`; and `pictures`: by kind a list of name (the file's
        stem), width, height, bytes and sha256 of the new file.
    """
    from service.core.errors import UsageError
    from service.core.uploads.decoding import ImageLimits
    from service.core.uploads.pairs import read_normals, read_pairs, shared_reading
    from service.core.uploads.problems import UnusableFilesError
    from service.core.uploads.reading import Reading, chosen_reading

    files = {kind: {name: Path(path) for name, path in named.items()} for kind, named in inspection["files"].items()}
    limits = ImageLimits(**inspection["limits"])
    folder = Path(inspection["folder"])
    pictures: dict[str, list[dict[str, Any]]] = {"images": [], "masks": [], "normals": []}
    problems: list[dict[str, Any]] = []
    notes: list[str] = []
    reading = Reading()
    # The API reports mistakes in the form's fields itself.
    with suppress(UsageError):
        reading = chosen_reading(inspection.get("brightness"), inspection.get("mask_values"))
    reading = shared_reading(reading, files["images"], files["masks"], files["normals"], limits)
    try:
        pairs = read_pairs(files["images"], files["masks"], limits, reading)
        notes += pairs.notes
        for index, pair in enumerate(pairs.pairs):
            pictures["images"].append(_written(pair.image, pair.name, folder / "images" / f"{index:03}.png"))
            pictures["masks"].append(_written(pair.mask, pair.name, folder / "masks" / f"{index:03}.png"))
        del pairs
    except UnusableFilesError as error:
        problems += map(asdict, error.found)
    if files["normals"]:
        try:
            normals = read_normals(files["normals"], limits, reading)
            notes += normals.notes
            for index, normal in enumerate(normals.images):
                pictures["normals"].append(_written(normal.image, normal.name, folder / "normals" / f"{index:03}.png"))
        except UnusableFilesError as error:
            problems += map(asdict, error.found)
    return {"problems": problems, "notes": notes, "pictures": pictures}


def _written(pixels: Any, name: str, path: Path) -> dict[str, Any]:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels if pixels.ndim == 3 else pixels.astype("uint8") * 255)
    image.save(path, "PNG")
    data = path.read_bytes()
    return {
        "name": name,
        "width": image.width,
        "height": image.height,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }


if __name__ == "__main__":
    main()
