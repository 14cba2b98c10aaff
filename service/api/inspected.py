"""Reads the pictures of an upload, those to train on and those held out, and writes them as PNG."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from service.core.object_keys import HELD_OUT, Upload
from service.core.uploads.decoding import ImageLimits
from service.core.uploads.listing import stem
from service.core.uploads.pairs import read_normals, read_pairs
from service.core.uploads.problems import FileProblem, UnusableFilesError
from service.core.uploads.reading import Range, Reading

GivenFiles = tuple[Upload, Mapping[str, Path]]
"""Their kind, and name → path."""

Source = tuple[Upload, str, str]
"""Kind, name and defect type of a file; the type is empty where the form names none."""

_AS_TRAINED = {held_out: kind for kind, held_out in HELD_OUT.items()}


class Inspected:
    """What was found so far.

    Args:
        folder: where the pictures are written, as `{kind}/{index:03}.png`.

    Attributes:
        problems: detail, brief and files (as `Source`) each.
        pictures: kind → name, defect type, width, height, bytes and sha256 of each new file.
        brightness: the values that became black and white in training pictures with more than 8 bits; None if there
            were none.
    """

    def __init__(self, folder: Path) -> None:
        self.problems: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self.pictures: dict[str, list[dict[str, Any]]] = {kind: [] for kind in Upload}
        self.brightness: Range | None = None
        self._folder = folder
        self._sources: list[tuple[Source, str]] = []
        self._pixels = 0

    def read_pairs(
        self, images: GivenFiles, masks: GivenFiles, limits: ImageLimits, reading: Reading, defect: str = ""
    ) -> None:
        """Read the pairs of a defect type, and write them."""
        try:
            pairs = read_pairs(images[1], masks[1], limits, reading)
        except UnusableFilesError as error:
            self._add(error.found, images[0], defect)
            return
        self._note(pairs.notes, images[0], defect)
        self._keep(pairs.brightness, images[0])
        names = {stem(name): name for name in images[1]}
        for pair in pairs.pairs:
            self._write((images[0], names[pair.name], defect), pair.name, pair.image)
            self._write((masks[0], pair.name, defect), pair.name, pair.mask)
        before, most = self._pixels, limits.max_total_pixels
        self._pixels += sum(pair.mask.size for pair in pairs.pairs)
        if defect and before <= most < self._pixels:
            detail = f"the images up to those of {defect} have more than {most / 1e6:g} megapixels together, the limit"
            self._add([FileProblem.about(f"{detail}: use fewer or smaller ones")], images[0], "")

    def read_normals(self, kind: Upload, files: Mapping[str, Path], limits: ImageLimits, reading: Reading) -> None:
        """Read normal images, if there are any, and write them."""
        if not files:
            return
        try:
            found = read_normals(files, limits, reading)
        except UnusableFilesError as error:
            self._add(error.found, kind, "")
            return
        self._note(found.notes, kind, "")
        self._keep(found.brightness, kind)
        names = {stem(name): name for name in files}
        for normal in found.images:
            self._write((kind, names[normal.name], ""), normal.name, normal.image)

    def refuse_leaks(self) -> None:
        """Refuse pictures that are trained on and held out, or held out twice; equal pixels have equal new files."""
        first: dict[str, Source] = {}
        for source, digest in self._sources:
            kind, name, _ = source
            twin = first.setdefault(digest, source)
            if twin != source and kind in _AS_TRAINED:
                detail = (
                    f"{name} of the {kind} is the same picture as {twin[1]} of the {twin[0]}: what is held out "
                    "must show parts that nothing was trained on, keep one of them"
                )
                self.problems.append({"detail": detail, "brief": detail, "files": [source, twin]})

    def _keep(self, brightness: Range | None, kind: Upload) -> None:
        if kind not in _AS_TRAINED:
            self.brightness = self.brightness or brightness

    def _note(self, notes: Iterable[str], kind: Upload, defect: str) -> None:
        self.notes += [_before(kind, defect) + note for note in notes]

    def _add(self, problems: Iterable[FileProblem], kind: Upload, defect: str) -> None:
        """Add problems with files of the kinds that belong to `kind`."""
        before = _before(kind, defect)
        for problem in problems:
            files = [(HELD_OUT[use] if kind in _AS_TRAINED else use, name, defect) for use, name in problem.files]
            self.problems.append({"detail": before + problem.detail, "brief": before + problem.brief, "files": files})

    def _write(self, source: Source, name: str, pixels: Any) -> None:
        kind, _, defect = source
        path = self._folder / kind / f"{len(self.pictures[kind]):03}.png"
        written = _written(pixels, name, path)
        self.pictures[kind].append({**written, "defect": defect})
        if kind not in {Upload.MASKS, Upload.HELD_OUT_MASKS}:
            self._sources.append((source, written["sha256"]))


def _before(kind: Upload, defect: str) -> str:
    """What sentences about files begin with that are held out, or of a named defect type."""
    told = [*(["held out"] if kind in _AS_TRAINED else []), *([defect] if defect else [])]
    return f"{', '.join(told)}: " if told else ""


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
