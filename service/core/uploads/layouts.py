"""Finds images and masks in the folder layouts of public data sets and annotation tools: MVTec AD, VisA, KolektorSDD.

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

# The layouts of MVTec AD, MVTec AD 2 and VisA, of annotation tools, and common ones of users' own folders.
_PARTS = (
    *(("test", "ground_truth"), ("test_public", "test_public/ground_truth"), ("Data/Images", "Data/Masks")),
    *(("JPEGImages", "SegmentationClass"), ("img", "masks_machine"), ("Images", "Masks"), ("images", "masks")),
    *(("image", "mask"), ("img", "mask"), ("imgs", "masks"), ("images", "ground_truth"), ("images", "labels")),
)
_SPLITS = {"train", "test", "val", "valid"}
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
        return _only_subfolder(folder, notes)
    return folder


def _of_paths(images: Path, masks: Path, notes: Notes, problems: list[FileProblem]) -> Folders:
    same = _is_same(images, masks)
    for part, mask_part in _PARTS:
        if same and (images / part).is_dir() and (masks / mask_part).is_dir():
            images, masks, same = images / part, masks / mask_part, False
        elif not same and not has_pictures(images) and (images / part).is_dir():
            images = images / part
        if not same and not has_pictures(masks) and (masks / mask_part).is_dir():
            masks = masks / mask_part
    if same:
        return _of_one_folder(images, notes, problems)
    if not has_pictures(images) and not has_pictures(masks):
        images, masks = _of_kinds(images, masks, notes, problems)
    images, masks = _only_subfolder(images, notes), _only_subfolder(masks, notes)
    if has_pictures(images) and not has_pictures(masks) and _subfolders(masks):
        # One folder per image, with one file per region, as in MVTec LOCO.
        return Folders(images, _gathered(Upload.MASKS, masks, notes, problems))
    return Folders(images, masks)


def _of_kinds(images: Path, masks: Path, notes: Notes, problems: list[FileProblem]) -> tuple[Path, Path]:
    """Find the pairs in folders with one subfolder per kind of defect."""
    found = _subfolders(images)
    others = {name: path for name, path in _folders(masks).items() if has_pictures(path) or _subfolders(path)}
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
        return images, masks
    for name in sorted(found.keys() - set(kinds)):
        notes.add("folder", shown_name(name), ["left out because it has no masks; give defect-free images as normals"])
    notes.add("folder", shown_name(kinds[0]), ["its images and masks are used"])
    return found[kinds[0]], others[kinds[0]]


def _only_subfolder(folder: Path, notes: Notes) -> Path:
    """Return the only subfolder with pictures of a folder without any."""
    inside = list(_subfolders(folder).items())
    if has_pictures(folder) or len(inside) != 1:
        return folder
    [(name, path)] = inside
    notes.add("folder", shown_name(folder.name), [f"the pictures in {shown_name(name)} are used"])
    return path


def _of_one_folder(folder: Path, notes: Notes, problems: list[FileProblem]) -> Folders:
    """Find images and masks side by side, in the folder itself or in one subfolder per part."""
    inside = _subfolders(folder)
    if not has_pictures(folder) and "train" in inside and inside.keys() <= _SPLITS:
        # As in KolektorSDD2: what tests must not train.
        notes.add("folder", shown_name(folder.name), ["the pictures in train are used, those to test with left out"])
        folder = inside["train"]
    if has_pictures(folder) or not inside:
        files = listed(Upload.IMAGES, folder, notes, problems)
    else:
        files = _gathered(Upload.IMAGES, folder, notes, problems)
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


def _gathered(use: Upload, folder: Path, notes: Notes, problems: list[FileProblem]) -> dict[str, Source]:
    """List the pictures in all subfolders, each with its folder's name before its own."""
    files: dict[str, Source] = {}
    for name, place in sorted(_subfolders(folder).items()):
        inside = listed(use, place, notes, problems)
        files |= {f"{shown_name(name)}_{file}": path for file, path in inside.items()}
    return files


def _subfolders(folder: Path) -> dict[str, Path]:
    """Return the subfolders that contain pictures."""
    return {name: path for name, path in _folders(folder).items() if has_pictures(path)}


def _folders(folder: Path) -> dict[str, Path]:
    try:
        return {path.name: path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")}
    except OSError:
        return {}


def _are_same(images: Mapping[str, Source], masks: Mapping[str, Source]) -> bool:
    return images.keys() == masks.keys() and all(is_same_file(images[name], masks[name]) for name in images)


def _is_same(images: Path, masks: Path) -> bool:
    try:
        return images.samefile(masks)
    except OSError:
        return False
