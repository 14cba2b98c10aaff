"""Selects the files of a folder to upload."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from service.client import HeldOut
from service.core.errors import UsageError
from service.core.object_keys import Upload
from service.core.uploads.decoding import ImageLimits
from service.core.uploads.images import read_mask
from service.core.uploads.layouts import normals_folder, pair_folders
from service.core.uploads.listing import Notes, listed
from service.core.uploads.problems import FileProblem, UnusableFilesError


def pair_pictures(images: Path, masks: Path) -> tuple[list[Path], list[Path]]:
    """Find the images and masks in two folders, or in the folders of a public data set.

    Raises:
        UnusableFilesError: a folder cannot be read, or holds several kinds of defect.
    """
    problems: list[FileProblem] = []
    folders = pair_folders(images, masks, Notes(), problems)
    found = [
        [path for path in listed(use, files, Notes(), problems).values() if isinstance(path, Path)]
        for use, files in ((Upload.IMAGES, folders.images), (Upload.MASKS, folders.masks))
    ]
    if problems:
        raise UnusableFilesError(problems)
    return found[0], found[1]


def typed_pictures(folders: Mapping[str, tuple[Path, Path]]) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
    """Find the images and masks of several defect types, type → files each.

    Raises:
        UnusableFilesError: a folder cannot be read.
    """
    found = {name: pair_pictures(images, masks) for name, (images, masks) in folders.items()}
    return {name: pair[0] for name, pair in found.items()}, {name: pair[1] for name, pair in found.items()}


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
    return [{"mask": _drawn(file), "normal": file.name} for file in pictures(path, Upload.MASKS)]


def _drawn(path: Path) -> str:
    """Return a mask as base64 of a PNG, whatever kind of file it is."""
    mask, _ = read_mask(path, path.name, ImageLimits())
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")


def held_out_pictures(images: Path | None, masks: Path | None, normals: Path | None) -> HeldOut | None:
    """Find what is held out, in the same way; None without any folder.

    Raises:
        UsageError: one of the folders of images and masks is missing.
        UnusableFilesError: a folder cannot be read, or holds several kinds of defect.
    """
    if images is None and masks is None and normals is None:
        return None
    if images is None or masks is None:
        raise UsageError("held-out photographs need both --held-out-images and --held-out-masks")
    return HeldOut(*pair_pictures(images, masks), pictures(normals, Upload.NORMALS))


def pictures(folder: Path | None, use: Upload) -> list[Path]:
    """List the files of a folder that look like pictures, by name; empty for None. The server checks their content.

    Raises:
        UnusableFilesError: the folder cannot be read.
    """
    if folder is None:
        return []
    problems: list[FileProblem] = []
    names = listed(use, normals_folder(folder, Notes()) if use is Upload.NORMALS else folder, Notes(), problems)
    if problems:
        raise UnusableFilesError(problems)
    return [path for path in names.values() if isinstance(path, Path)]
