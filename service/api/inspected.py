"""Reads the pictures of an upload, those to train on and those held out, and writes them as PNG."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image

from service.core.object_keys import HELD_OUT, Upload
from service.core.uploads.decoding import ImageLimits
from service.core.uploads.listing import stem
from service.core.uploads.pairs import read_normals, read_pairs
from service.core.uploads.problems import FileProblem, UnusableFilesError
from service.core.uploads.reading import Reading


class Inspected:
    """What was found so far.

    Args:
        folder: where the pictures are written, as `{kind}/{index:03}.png`.

    Attributes:
        problems: the fields of a `FileProblem` each.
        pictures: kind → name, width, height, bytes and sha256 of each new file.
    """

    def __init__(self, folder: Path) -> None:
        self.problems: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self.pictures: dict[str, list[dict[str, Any]]] = {kind: [] for kind in Upload}
        self._folder = folder

    def read(
        self, files: Mapping[Upload, tuple[Upload, Mapping[str, Path]]], limits: ImageLimits, reading: Reading
    ) -> None:
        """Read pairs and normal images, and write them.

        Args:
            files: what they serve as → their kind, and name → path.
        """
        (images, image_files), (masks, mask_files) = files[Upload.IMAGES], files[Upload.MASKS]
        normals, normal_files = files[Upload.NORMALS]
        held_out = images is not Upload.IMAGES
        try:
            pairs = read_pairs(image_files, mask_files, limits, reading)
            self._note(pairs.notes, held_out=held_out)
            for pair in pairs.pairs:
                self._write(images, pair.name, pair.image)
                self._write(masks, pair.name, pair.mask)
            del pairs
        except UnusableFilesError as error:
            self._add(error.found, held_out=held_out)
        if not normal_files:
            return
        try:
            found = read_normals(normal_files, limits, reading)
            self._note(found.notes, held_out=held_out)
            for normal in found.images:
                self._write(normals, normal.name, normal.image)
        except UnusableFilesError as error:
            self._add(error.found, held_out=held_out)

    def refuse_leaks(self, files: Mapping[Upload, Mapping[str, Path]]) -> None:
        """Refuse pictures that are trained on and held out, or held out twice; equal pixels have equal new files."""
        first: dict[str, tuple[Upload, str]] = {}
        for kind in (Upload.IMAGES, Upload.NORMALS, Upload.HELD_OUT_IMAGES, Upload.HELD_OUT_NORMALS):
            names = {stem(name): name for name in files[kind]}
            for picture in self.pictures[kind]:
                name = names[picture["name"]]
                twin = first.setdefault(picture["sha256"], (kind, name))
                if twin != (kind, name) and kind in HELD_OUT.values():
                    detail = (
                        f"{name} of the {kind} is the same picture as {twin[1]} of the {twin[0]}: what is held out "
                        "must show parts that nothing was trained on, keep one of them"
                    )
                    self.problems.append(asdict(FileProblem.about(detail, (kind, name), twin)))

    def _note(self, notes: Iterable[str], *, held_out: bool) -> None:
        self.notes += [f"held out: {note}" if held_out else note for note in notes]

    def _add(self, problems: Iterable[FileProblem], *, held_out: bool) -> None:
        if held_out:
            problems = [
                FileProblem(
                    f"held out: {problem.detail}",
                    tuple((HELD_OUT[kind], name) for kind, name in problem.files),
                    f"held out: {problem.brief}",
                )
                for problem in problems
            ]
        self.problems += map(asdict, problems)

    def _write(self, kind: Upload, name: str, pixels: Any) -> None:
        path = self._folder / kind / f"{len(self.pictures[kind]):03}.png"
        self.pictures[kind].append(_written(pixels, name, path))


def _written(pixels: Any, name: str, path: Path) -> dict[str, Any]:
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
