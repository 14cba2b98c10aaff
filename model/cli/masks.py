"""`pairforge masks`: finds the masks of anomaly parts, without generating anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from model.cli.checks import OWN_FILES, Problems, check_new_folder, choose_device
from model.cli.output import Output
from model.diffusion.base import locate_base
from model.masks.extraction import threshold_mask, tidy_mask, u2net_mask
from model.masks.u2net import U2Net, load_u2net
from model.runtime.progress import Meter
from model.types import ImageArray, MaskArray
from service.core.atomic_write import atomic_folder
from service.core.errors import UsageError
from service.core.object_keys import Upload
from service.core.options.common import MaskMethod
from service.core.uploads.images import read_image
from service.core.uploads.listing import Notes, elsewhere, listed, stem
from service.core.uploads.pairs import shared_reading
from service.core.uploads.problems import FileProblem, enumerated
from service.core.uploads.reading import Reading

METHODS = (MaskMethod.U2NET, MaskMethod.THRESHOLD)
"""The methods that need only the part; the attention method needs the sampling itself."""


@dataclass(frozen=True, slots=True)
class MasksRequest:
    """What the user asked for; `net` is a weight file or an adapter's folder, None means the base's network."""

    parts: Path
    target: Path
    method: str
    net: Path | None
    base: str
    device: str = "auto"


def make_masks(request: MasksRequest, output: Output) -> None:
    """Check every part, then write one mask for each to a new folder, which appears when it is complete."""
    problems = Problems()
    problems.attempt(check_new_folder, request.target)
    files, notes = problems.attempt(_part_files, request.parts) or ({}, Notes())
    reading = shared_reading(Reading(), files, {}, None, OWN_FILES)
    for name, path in files.items():
        if (read := problems.attempt(read_image, path, name, OWN_FILES, reading.brightness)) is not None:
            notes.add("part", name, read[1])
    find = problems.attempt(_finder, request)
    if problems.found or find is None:
        omissions = [problem.brief for problem in notes.left_out()]
        raise UsageError([*problems.found, *omissions], "the masks cannot be made")
    for note in notes.sentences():
        output.note(note)
    empty = []
    meter = Meter("masks", len(files), "masks")
    with atomic_folder(request.target) as aside:
        for number, (name, path) in enumerate(files.items()):
            mask = tidy_mask(find(read_image(path, name, OWN_FILES, reading.brightness)[0]))
            Image.fromarray(mask.astype(np.uint8) * 255).save(aside / f"{stem(name)}.png")
            if not mask.any():
                empty.append(name)
            output.progress(meter.report(number + 1))
    text = f"masks: {request.target} ({len(files)} files)"
    if empty:
        text += f"\n{len(empty)} of them are empty, because no defect was found: {enumerated(empty)}"
    output.result({"masks": str(request.target), "count": len(files), "empty": empty}, text)


def _part_files(folder: Path) -> tuple[dict[str, Path], Notes]:
    """Return the image files by name, and notes on files left out."""
    if not folder.is_dir():
        raise UsageError(
            f"{folder} is not a folder: give one with images of anomaly parts, defects on a mid-grey background"
        )
    notes = Notes()
    problems: list[FileProblem] = []
    files = {
        name: path for name, path in listed(Upload.IMAGES, folder, notes, problems).items() if isinstance(path, Path)
    }
    if not files:
        problems += [*notes.left_out(), *elsewhere(Upload.IMAGES, folder)]
        raise UsageError([f"{folder} contains no images", *(problem.detail for problem in problems)])
    stems: dict[str, str] = {}
    clashes = [
        f"{stems[stem(name)]} and {name} would both be written to {stem(name)}.png: rename one"
        for name in files
        if stems.setdefault(stem(name), name) != name
    ]
    if clashes or problems:
        raise UsageError([*clashes, *(problem.detail for problem in (*problems, *notes.left_out()))])
    return files, notes


def _finder(request: MasksRequest) -> Callable[[ImageArray], MaskArray]:
    if request.method not in METHODS:
        raise UsageError(f"mask method {request.method!r} is not available: choose from {', '.join(METHODS)}")
    if request.method == MaskMethod.THRESHOLD:
        return threshold_mask
    return partial(u2net_mask, _network(request))


def _network(request: MasksRequest) -> U2Net:
    if request.net is None:
        file = locate_base(request.base) / "u2net" / "part.safetensors"
        missing = f"base {request.base} has no mask network"
    else:
        file = request.net / "mask_net.safetensors" if request.net.is_dir() else request.net
        missing = f"the mask network {file} does not exist"
    if not file.is_file():
        raise UsageError(f"{missing}: set --net to a weight file or an adapter folder, or use --method threshold")
    return load_u2net(file).to(choose_device(request.device))
