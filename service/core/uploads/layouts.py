"""Finds images and masks in the folder layouts of public data sets: MVTec AD, VisA, KolektorSDD.

A subfolder of the given folders is used only if there is exactly one way to understand them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from service.core.object_keys import Upload
from service.core.uploads.decoding import Source, is_same_file
from service.core.uploads.listing import Files, Notes, has_pictures, key_of, listed
from service.core.uploads.names import image_of, mask_suffix, shown_name
from service.core.uploads.problems import FileProblem, enumerated

# The layouts of MVTec AD and VisA, and common ones of users' own folders.
_PARTS = (("test", "ground_truth"), ("Data/Images", "Data/Masks"), ("Images", "Masks"), ("images", "masks"))
_NORMALS = ("train/good", "good", "Data/Images/Normal", "Images/Normal", "Normal", "normal")


@dataclass(frozen=True, slots=True)
class Folders:
    """The folders or files of images and masks.

    Attributes:
        mixed: they came from one folder, in which defect-free pictures have empty masks.
    """

    images: Files
    masks: Files
    mixed: bool = False


def pair_folders(images: Files, masks: Files, notes: Notes, problems: list[FileProblem]) -> Folders:
    """Find the images and masks that the user means."""
    if isinstance(images, Path) and isinstance(masks, Path):
        return _of_paths(images, masks, notes, problems)
    if isinstance(images, Path) or isinstance(masks, Path) or not _are_same(images, masks):
        return Folders(images, masks)
    split = _split(images)
    return split if split.masks else Folders(images, masks)


def normals_folder(folder: Files, notes: Notes) -> Files:
    """Find the folder of defect-free images that the user means."""
    if isinstance(folder, Path) and not has_pictures(folder):
        for part in _NORMALS:
            if has_pictures(folder / part):
                notes.add("folder", shown_name(folder.name), [f"the defect-free images in {part} are used"])
                return folder / part
    return folder


def _of_paths(images: Path, masks: Path, notes: Notes, problems: list[FileProblem]) -> Folders:
    same = _is_same(images, masks)
    for part, mask_part in _PARTS:
        if same and (images / part).is_dir() and (masks / mask_part).is_dir():
            images, masks, same = images / part, masks / mask_part, False
        if not has_pictures(images) and (images / part).is_dir():
            images = images / part
        if not has_pictures(masks) and (masks / mask_part).is_dir():
            masks = masks / mask_part
    if same:
        return _of_one_folder(images, notes, problems)
    if has_pictures(images) or has_pictures(masks):
        return Folders(images, masks)
    return _of_kinds(images, masks, notes, problems)


def _of_kinds(images: Path, masks: Path, notes: Notes, problems: list[FileProblem]) -> Folders:
    """Find the pairs in folders with one subfolder per kind of defect."""
    found, others = _subfolders(images), _subfolders(masks)
    kinds = sorted(found.keys() & others.keys())
    if len(kinds) > 1:
        first = kinds[0]
        problems.append(
            FileProblem.about(
                f"there are {len(kinds)} kinds of defect, {enumerated(kinds)}, but an adapter learns only one: give "
                f"{shown_name(str(found[first]))} and {shown_name(str(others[first]))}, or those of another kind"
            )
        )
    if not kinds:
        return Folders(images, masks)
    for name in sorted(found.keys() - set(kinds)):
        notes.add("folder", shown_name(name), ["left out because it has no masks; give defect-free images as normals"])
    notes.add("folder", shown_name(kinds[0]), ["its images and masks are used"])
    return Folders(found[kinds[0]], others[kinds[0]])


def _of_one_folder(folder: Path, notes: Notes, problems: list[FileProblem]) -> Folders:
    """Find images and masks side by side, in the folder itself or in one subfolder per part."""
    files: dict[str, Source] = {}
    if has_pictures(folder) or not _subfolders(folder):
        files |= listed(Upload.IMAGES, folder, notes, problems)
    else:
        for name, place in sorted(_subfolders(folder).items()):
            inside = listed(Upload.IMAGES, place, notes, problems)
            files |= {f"{shown_name(name)}_{file}": path for file, path in inside.items()}
    split = _split(files)
    if files and not split.masks:
        problems.append(
            FileProblem.about(
                "images and masks are the same folder, and no file in it has the name of another picture's mask, such "
                "as 000_mask.png for 000.png: a picture cannot be its own mask"
            )
        )
    elif files:
        notes.add("folder", shown_name(folder.name), ["contains images and masks, distinguished by their names"])
    return split


def _split(files: Mapping[str, Source]) -> Folders:
    keys = {name: key_of(name) for name in files}
    pictures = {key: name for name, key in keys.items() if not mask_suffix(key)}
    masks = {
        name
        for name, key in keys.items()
        if mask_suffix(key) and (image := image_of(key, pictures)) is not None and image != key
    }
    if not masks:
        # As in Magnetic Tile: the photograph is a JPEG, its mask the PNG of the same name.
        photographs = {key for name, key in keys.items() if Path(name).suffix.lower() in {".jpg", ".jpeg"}}
        masks = {name for name, key in keys.items() if key in photographs and Path(name).suffix.lower() == ".png"}
    images = {name: source for name, source in files.items() if name not in masks}
    return Folders(images, {name: files[name] for name in sorted(masks)}, mixed=True)


def _subfolders(folder: Path) -> dict[str, Path]:
    try:
        return {path.name: path for path in folder.iterdir() if path.is_dir() and has_pictures(path)}
    except OSError:
        return {}


def _are_same(images: Mapping[str, Source], masks: Mapping[str, Source]) -> bool:
    return images.keys() == masks.keys() and all(is_same_file(images[name], masks[name]) for name in images)


def _is_same(images: Path, masks: Path) -> bool:
    try:
        return images.samefile(masks)
    except OSError:
        return False
