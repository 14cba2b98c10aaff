"""Selects the files of a folder to upload, by the name that each is sent with."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from service.client import HeldOut
from service.client.resources import Pictures
from service.core.errors import UsageError
from service.core.object_keys import Upload
from service.core.strict_json import parse
from service.core.uploads.decoding import ImageLimits
from service.core.uploads.images import read_mask
from service.core.uploads.layouts import normals_folder
from service.core.uploads.listing import Notes, listed
from service.core.uploads.pairs import files_to_send
from service.core.uploads.problems import FileProblem, UnusableFilesError

Named = dict[str, Path]
"""Files by the name that they are sent with."""


def pair_pictures(images: Path, masks: Path) -> tuple[Named, Named, list[str]]:
    """Find the images and masks in two folders, or in the folders of a public data set; notes say what is left out.

    Raises:
        UnusableFilesError: a folder cannot be read, or contains several kinds of defect.
    """
    return files_to_send(images, masks, ImageLimits())


def typed_pictures(
    folders: Mapping[str, tuple[Path, Path]],
) -> tuple[dict[str, Named], dict[str, Named], list[str]]:
    """Find the images and masks of several defect types, type → files each; notes say what is left out.

    Raises:
        UnusableFilesError: a folder cannot be read.
    """
    found = {name: pair_pictures(images, masks) for name, (images, masks) in folders.items()}
    notes = [f"{name}: {note}" for name, (*_, left_out) in found.items() for note in left_out]
    return {name: pair[0] for name, pair in found.items()}, {name: pair[1] for name, pair in found.items()}, notes


def regions(path: Path | None) -> list[dict[str, str]] | None:
    """Read a region of all good parts, or a folder of one for each, as a job's `allowed` or `forbidden`.

    Args:
        path: a mask; or a folder of masks that are named like the good parts. None for no region.

    Raises:
        UnusableFilesError: the folder cannot be read.
        UsageError: a file is no mask.
    """
    if path is None:
        return None
    if not path.is_dir():
        return [{"mask": _drawn(path)}]
    problems: list[FileProblem] = []
    files = listed(Upload.MASKS, path, Notes(), problems)
    if problems:
        raise UnusableFilesError(problems)
    return [{"mask": _drawn(file), "normal": name} for name, file in files.items() if isinstance(file, Path)]


def approvals(path: Path) -> dict[str, Any]:
    """Read the approved pairs, alone or in a whole request with `reviewer` and `formats`, as that request.

    Raises:
        UsageError: the file cannot be read, or is neither.
    """
    try:
        read = parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"the file of approved pairs {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"the file of approved pairs {path} is not JSON: {error}") from error
    request = {"approved": read} if isinstance(read, list) else read
    pairs = request.get("approved") if isinstance(request, dict) else None
    if not isinstance(pairs, list) or not all(isinstance(pair, dict | int) for pair in pairs):
        raise UsageError(
            f'the file of approved pairs {path} must contain a list such as [{{"candidate": 0}}], or an object that '
            "has one as approved"
        )
    return dict(request)


def _drawn(path: Path) -> str:
    """Return a mask as base64 of a PNG, whatever kind of file it is."""
    mask, _ = read_mask(path, path.name, ImageLimits())
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")


def held_out_pictures(
    images: Path | None, masks: Path | None, normals: Path | None, types: Sequence[str] = ()
) -> tuple[HeldOut | None, list[str]]:
    """Find what is held out, in the same way; None without any folder.

    Args:
        types: the defect types of an adapter of several. Where the folders hold one of each type's name, the files
            name their type.

    Raises:
        UsageError: one of the folders of images and masks is missing.
        UnusableFilesError: a folder cannot be read, or contains several kinds of defect.
    """
    if images is None and masks is None and normals is None:
        return None, []
    if images is None or masks is None:
        raise UsageError("held-out photographs need both --held-out-images and --held-out-masks")
    found_images: Pictures
    found_masks: Pictures
    if types and all((images / name).is_dir() for name in types):
        folders = {name: (images / name, masks / name) for name in types}
        found_images, found_masks, pair_notes = typed_pictures(folders)
    else:
        found_images, found_masks, pair_notes = pair_pictures(images, masks)
    good, notes = normal_pictures(normals)
    return HeldOut(found_images, found_masks, good), [f"held out: {note}" for note in (*pair_notes, *notes)]


def normal_pictures(folder: Path | None) -> tuple[Named, list[str]]:
    """List the files of a folder that look like pictures; empty for None. The server checks their content.

    Raises:
        UnusableFilesError: the folder cannot be read.
    """
    if folder is None:
        return {}, []
    notes = Notes()
    problems: list[FileProblem] = []
    names = listed(Upload.NORMALS, normals_folder(folder, notes), notes, problems)
    if problems:
        raise UnusableFilesError([*problems, *notes.left_out()])
    return {name: path for name, path in names.items() if isinstance(path, Path)}, notes.sentences()
