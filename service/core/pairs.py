"""Pairing images with their masks: everything that is wrong with a set of uploads or folders is told at once."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from service.core.decoding import ImageLimits, Source
from service.core.errors import UsageError
from service.core.file_problems import FileProblem, UnusableFilesError
from service.core.images import ImageArray, MaskArray, read_image, read_mask
from service.core.keys import Upload
from service.core.listing import Files, NamedSource, Notes, by_stem, counted, left_out, listed
from service.core.listing import stem as stem_of

NamedFiles = Mapping[str, NamedSource]
"""By stem: the name and the file."""

_Match = tuple[NamedSource | None, NamedSource | None]
"""An image and its mask, or one of them alone."""

_Pixels = TypeVar("_Pixels")
_MASK_SUFFIX = re.compile(r"[_-](mask|gt)$")


@dataclass(frozen=True, slots=True)
class Pair:
    """A real few-shot example, field by field the model's own `Pair`, which the service must not import.

    Attributes:
        name: the image's file stem.
        image: `(H, W, 3)` uint8.
        mask: `(H, W)` bool, True = defect; some of it, but not all.
    """

    name: str
    image: ImageArray
    mask: MaskArray


@dataclass(frozen=True, slots=True)
class PairSet:
    """The pairs, sorted by name, and what was converted, left out or looks odd, one sentence each."""

    pairs: list[Pair]
    notes: list[str]


@dataclass(frozen=True, slots=True)
class NamedImage:
    """An `(H, W, 3)` uint8 image by its file stem."""

    name: str
    image: ImageArray


@dataclass(frozen=True, slots=True)
class ImageSet:
    """The images, sorted by name, and what was converted or left out, one sentence each."""

    images: list[NamedImage]
    notes: list[str]


def read_pairs(images: Files, masks: Files, limits: ImageLimits) -> PairSet:
    """Read images and their masks, paired by file stem.

    Upper and lower case do not matter, and a mask may be called like its image or with `_mask`, `-mask`, `_gt` or `-gt`
    behind that. Hidden and system files are left out; in folders so is what is no picture.

    Args:
        images: the whole defective images.
        masks: one mask for each.
        limits: what is accepted.

    Raises:
        UnusableFilesError: with all problems of all files, not only the first.
    """
    notes = Notes()
    problems: list[FileProblem] = []
    image_files, more_images = by_stem(Upload.IMAGES, listed(Upload.IMAGES, images, notes, problems), problems)
    masks_by_stem, more_masks = by_stem(Upload.MASKS, listed(Upload.MASKS, masks, notes, problems), problems)
    mask_files, surplus = _matched(masks_by_stem, image_files, problems)
    stems = sorted(image_files.keys() & mask_files.keys())
    lonely_images, lonely_masks = _beside(image_files, mask_files), _beside(mask_files, image_files)
    problems += [*_unpaired(lonely_images, lonely_masks), *_miscounted(len(stems), limits)]
    if len(stems) < limits.min_pairs:
        problems += [*left_out(Upload.IMAGES, images), *left_out(Upload.MASKS, masks)]
    # What has no partner is looked at too, so that mending that does not bring up the next mistake. Beyond the limit
    # there is no end to what would have to be decoded.
    files: list[_Match] = [(image_files[stem], mask_files[stem]) for stem in stems[: limits.max_pairs]]
    files += [(image, None) for image in [*lonely_images, *more_images][: limits.max_pairs]]
    files += [(None, mask) for mask in [*lonely_masks, *more_masks, *surplus][: limits.max_pairs]]
    pairs = _read_each(files, limits, notes, problems)
    if problems:
        raise UnusableFilesError(problems, "the images and masks cannot be used")
    return PairSet(pairs, notes.sentences())


def read_normals(folder: Files, limits: ImageLimits) -> ImageSet:
    """Read defect-free images; what is no picture is left out.

    Args:
        folder: the images.
        limits: what is accepted; the numbers of pairs do not apply.

    Raises:
        UnusableFilesError: with all problems of all files, or that there are no images.
    """
    notes = Notes()
    problems: list[FileProblem] = []
    files, more = by_stem(Upload.NORMALS, listed(Upload.NORMALS, folder, notes, problems), problems)
    if not files and not problems:
        problems.append(FileProblem.about("there are no defect-free images: at least 1 is needed"))
        problems += left_out(Upload.NORMALS, folder)
    normals: list[NamedImage] = []
    pixels = 0
    for file in [*(file for _, file in sorted(files.items())), *more]:
        read = _attempt(read_image, Upload.NORMALS, file, limits, problems)
        if read is not None:
            image, conversions = read
            notes.add("normal image", file[0], conversions)
            normals.append(NamedImage(stem_of(file[0]), image))
            pixels += image.shape[0] * image.shape[1]
        if problems:
            normals.clear()
        if pixels > limits.max_total_pixels:
            problems.append(_too_many_pixels(limits, file[0]))
            break
    if problems:
        raise UnusableFilesError(problems, "the defect-free images cannot be used")
    return ImageSet(normals, notes.sentences())


def _matched(
    masks: NamedFiles, images: NamedFiles, problems: list[FileProblem]
) -> tuple[NamedFiles, list[NamedSource]]:
    """Masks by the stem of their image: their own stem, or else that without the suffix; and those too many."""
    matched: dict[str, NamedSource] = {}
    surplus: list[NamedSource] = []
    # A mask called exactly like an image comes first, so that the one too many is the one with a suffix.
    for stem, file in sorted(masks.items(), key=lambda item: item[0] not in images):
        key = stem if stem in images else _MASK_SUFFIX.sub("", stem)
        if key in matched:
            names = [matched[key][0], file[0]]
            after = " belong to the same image: keep one of them"
            problems.append(FileProblem.naming("masks", Upload.MASKS, names, after))
            surplus.append(file)
        else:
            matched[key] = file
    return matched, surplus


def _beside(files: NamedFiles, others: NamedFiles) -> list[NamedSource]:
    return [files[stem] for stem in sorted(files.keys() - others.keys())]


def _unpaired(images: Sequence[NamedSource], masks: Sequence[NamedSource]) -> list[FileProblem]:
    problems = []
    if names := [name for name, _ in images]:
        before = f"{counted(len(names), 'image')} without a mask:"
        after = f"; a mask of {names[0]} would be called {stem_of(names[0])}.png or {stem_of(names[0])}_mask.png"
        problems.append(FileProblem.naming(before, Upload.IMAGES, names, after))
    if names := [name for name, _ in masks]:
        before = f"{counted(len(names), 'mask')} without an image:"
        after = "; a mask has the name of its image, with or without _mask at the end"
        problems.append(FileProblem.naming(before, Upload.MASKS, names, after))
    return problems


def _miscounted(count: int, limits: ImageLimits) -> list[FileProblem]:
    found = f"{counted(count, 'pair')} of image and mask"
    if count < limits.min_pairs:
        return [FileProblem.about(f"{found}: at least {limits.min_pairs} are needed, 3 to 10 are recommended")]
    if count > limits.max_pairs:
        return [FileProblem.about(f"{found}: at most {limits.max_pairs} are accepted, 3 to 10 are recommended")]
    return []


def _read_each(files: Sequence[_Match], limits: ImageLimits, notes: Notes, problems: list[FileProblem]) -> list[Pair]:
    """Check every file, and hold the pixels only as long as nothing is wrong."""
    pairs: list[Pair] = []
    first_with: dict[bytes, str] = {}
    pixels = 0
    for image_file, mask_file in files:
        image = _attempt(read_image, Upload.IMAGES, image_file, limits, problems)
        mask = _attempt(read_mask, Upload.MASKS, mask_file, limits, problems)
        if image_file is not None and image is not None:
            name = image_file[0]
            notes.add("image", name, image[1])
            twin = first_with.setdefault(_digest(image[0]), name)
            if twin != name:
                after = " are the same picture: keep one of them"
                problems.append(FileProblem.naming("images", Upload.IMAGES, [twin, name], after))
            pixels += image[0].shape[0] * image[0].shape[1]
        if mask_file is not None and mask is not None:
            notes.add("mask", mask_file[0], mask[1])
        if image_file is not None and mask_file is not None and image is not None and mask is not None:
            pair = Pair(stem_of(image_file[0]), image[0], mask[0])
            problems += _unequal(pair, image_file[0], mask_file[0])
            pairs.append(pair)
        if problems:
            pairs.clear()
        if image_file is not None and pixels > limits.max_total_pixels:
            problems.append(_too_many_pixels(limits, image_file[0]))
            break
    return pairs


def _attempt(
    read: Callable[[Source, str, ImageLimits], tuple[_Pixels, list[str]]],
    use: Upload,
    file: NamedSource | None,
    limits: ImageLimits,
    problems: list[FileProblem],
) -> tuple[_Pixels, list[str]] | None:
    if file is None:
        return None
    name, source = file
    try:
        return read(source, name, limits)
    except UsageError as error:
        problems += [FileProblem.about(problem, (use, name)) for problem in error.problems]
        return None


def _digest(image: ImageArray) -> bytes:
    """Of the pixels, not of the file: a picture that was saved twice is one picture."""
    digest = hashlib.sha256(f"{image.shape}".encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.digest()


def _unequal(pair: Pair, image_name: str, mask_name: str) -> list[FileProblem]:
    (height, width), (mask_height, mask_width) = pair.image.shape[:2], pair.mask.shape
    if (height, width) == (mask_height, mask_width):
        return []
    sizes = f"image {image_name} is {width}×{height} pixels, but mask {mask_name} is {mask_width}×{mask_height}"
    turned = (height, width) == (mask_width, mask_height)
    told = "one of them is turned by 90°, perhaps by an EXIF orientation" if turned else "they must have the same size"
    return [FileProblem.about(f"{sizes}: {told}", (Upload.IMAGES, image_name), (Upload.MASKS, mask_name))]


def _too_many_pixels(limits: ImageLimits, last: str) -> FileProblem:
    most = limits.max_total_pixels / 1e6
    return FileProblem.about(
        f"the images up to {last} have more than {most:g} megapixels together, the most that is held at once; use "
        "fewer or smaller (what comes after it was not looked at)"
    )
