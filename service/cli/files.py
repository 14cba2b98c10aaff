"""Selects the files of a folder to upload, by the name that each is sent with."""

from __future__ import annotations

from pathlib import Path

from service.client import HeldOut
from service.core.errors import UsageError
from service.core.object_keys import Upload
from service.core.uploads.decoding import ImageLimits
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


def held_out_pictures(
    images: Path | None, masks: Path | None, normals: Path | None
) -> tuple[HeldOut | None, list[str]]:
    """Find what is held out, in the same way; None without any folder.

    Raises:
        UsageError: one of the folders of images and masks is missing.
        UnusableFilesError: a folder cannot be read, or contains several kinds of defect.
    """
    if images is None and masks is None and normals is None:
        return None, []
    if images is None or masks is None:
        raise UsageError("held-out photographs need both --held-out-images and --held-out-masks")
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
