"""Checks all of a command's inputs before any long work starts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

import torch

from model.adapter_card import read_adapter_card
from model.cli.session import existing_folder
from model.data.placement import NormalImage
from model.diffusion.base import Base, load_base, silence_libraries
from model.types import Pair
from service.core.errors import TransientError, UsageError
from service.core.uploads.decoding import ImageLimits
from service.core.uploads.pairs import read_normals, read_pairs
from service.core.uploads.reading import Range, Reading

OWN_FILES = ImageLimits(max_file_bytes=200 * 10**6, max_pixels=178 * 10**6, max_total_pixels=2 * 10**9)
"""Limits for files on the user's own machine. Pillow decodes no image of more than 178 megapixels; two gigapixels take
6 GB."""

_Value = TypeVar("_Value")
_Args = ParamSpec("_Args")

SPARE_BYTES = 50 * 10**6
"""Disk space left free beyond what a command writes."""


class Problems:
    """Collects all problems, so that they can be reported together."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def attempt(self, work: Callable[_Args, _Value], *args: _Args.args, **kwargs: _Args.kwargs) -> _Value | None:
        """Return the value of `work(...)`; on a UsageError, record its problems and return None."""
        return self.attempt_on("", work, *args, **kwargs)

    def attempt_on(
        self, name: str, work: Callable[_Args, _Value], *args: _Args.args, **kwargs: _Args.kwargs
    ) -> _Value | None:
        """Do the same as `attempt`, with `name` before each problem."""
        try:
            return work(*args, **kwargs)
        except UsageError as error:
            named = [f"{name}: {problem}" if name else problem for problem in error.problems]
            self.found += [problem for problem in named if problem not in self.found]
            return None


def open_base(source: str, device: str = "cpu") -> Base:
    """Load a base without the libraries' own progress bars and messages."""
    silence_libraries()
    return load_base(source, device=device)


def load_pairs(images: Path, masks: Path, reading: Reading | None = None) -> tuple[list[Pair], list[str], Range | None]:
    """Read the pairs in two folders; also returns notes on what was converted or left out, and the brightness range."""
    found = read_pairs(images, masks, OWN_FILES, reading)
    return [Pair(pair.name, pair.image, pair.mask) for pair in found.pairs], found.notes, found.brightness


def load_normals(
    folder: Path | None, reading: Reading | None = None
) -> tuple[list[NormalImage], list[str], Range | None]:
    """Read a folder's defect-free images, if one is given; also returns notes and the range like `load_pairs`."""
    if folder is None:
        return [], [], None
    found = read_normals(folder, OWN_FILES, reading)
    return [NormalImage(normal.name, normal.image) for normal in found.images], found.notes, found.brightness


def choose_device(name: str) -> str:
    """Return the device to compute on, `cuda` or `cpu`; `auto` prefers a GPU."""
    if name not in {"auto", "cpu", "cuda"}:
        raise UsageError(f"device is {name!r}; it must be auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("device is cuda, but torch finds no CUDA GPU; use cpu or auto")
    return "cuda" if name != "cpu" and torch.cuda.is_available() else "cpu"


def check_writable(path: Path) -> None:
    """Refuse a target whose folder can neither be written to nor be created."""
    place = path.absolute().parent
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        raise UsageError(f"{path} cannot be written: {place} is a file, not a folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise UsageError(f"{path} cannot be written: you have no permission to write to the folder {place}")


def check_new_file(path: Path, *, force: bool) -> None:
    """Refuse a target file that cannot be written, or that exists and must not be replaced."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder: give the path of a file to write")
    if path.exists() and not force:
        raise UsageError(f"{path} already exists: use --force to replace it, or choose another --out")
    check_writable(path)


def check_new_adapter(path: Path, *, force: bool) -> None:
    """Refuse an adapter's target folder like `check_new_file`; only an adapter is ever replaced."""
    if path.is_file():
        raise UsageError(f"{path} is a file: give the path of a folder to write")
    if path.exists() and any(path.iterdir()):
        try:
            read_adapter_card(path)
        except UsageError:
            raise UsageError(f"{path} contains files that are not an adapter: choose another --out") from None
        if not force:
            raise UsageError(f"{path} already contains an adapter: use --force to replace it, or choose another --out")
    check_writable(path)


def check_new_folder(path: Path) -> None:
    """Refuse a target folder that has content."""
    if path.is_file():
        raise UsageError(f"{path} is a file: give the path of a folder to write")
    if path.exists() and any(path.iterdir()):
        raise UsageError(f"{path} is not empty: choose another --out")
    check_writable(path)


def require_space(path: Path, needed: int) -> None:
    """Refuse to start when the disk has too little free space.

    Args:
        needed: a rough estimate, bytes.

    Raises:
        TransientError: if there is too little space; names the bytes needed and free.
    """
    place = existing_folder(path)
    free = shutil.disk_usage(place).free
    if free < needed + SPARE_BYTES:
        raise TransientError(
            f"writing {path} needs about {needed + SPARE_BYTES:,} bytes, but {place} has only {free:,} bytes free: "
            "free some disk space, or choose another --out"
        )
