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
from service.core.images import ImageArray, MaskArray, read_image, read_mask
from service.core.listing import Files, Notes, by_stem, counted, enumerated, listed
from service.core.listing import stem as stem_of

NamedFiles = Mapping[str, tuple[str, Source]]
"""By stem: the name and the file."""

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
        UsageError: with all problems of all files, not only the first.
    """
    notes = Notes()
    problems: list[str] = []
    image_files = by_stem("image", listed("images", images, notes, problems), problems)
    mask_files = _matched(by_stem("mask", listed("masks", masks, notes, problems), problems), image_files, problems)
    stems = sorted(image_files.keys() & mask_files.keys())
    problems += [*_unpaired(image_files, mask_files), *_miscounted(len(stems), limits)]
    # Beyond the limit there is no end to what would have to be decoded.
    stems = stems[: limits.max_pairs]
    pairs = _read_each([(image_files[stem], mask_files[stem]) for stem in stems], limits, notes, problems)
    if problems:
        raise UsageError(problems, "the images and masks cannot be used")
    return PairSet(pairs, notes.sentences())


def read_normals(folder: Files, limits: ImageLimits) -> ImageSet:
    """Read defect-free images; what is no picture is left out.

    Args:
        folder: the images.
        limits: what is accepted; the numbers of pairs do not apply.

    Raises:
        UsageError: with all problems of all files, or that there are no images.
    """
    notes = Notes()
    problems: list[str] = []
    files = by_stem("image", listed("normals", folder, notes, problems), problems)
    if not files and not problems:
        problems.append("there are no defect-free images: at least 1 is needed")
    normals: list[NamedImage] = []
    pixels = 0
    for _, file in sorted(files.items()):
        read = _attempt(read_image, file, limits, problems)
        if read is not None:
            image, conversions = read
            notes.add("normal image", file[0], conversions)
            normals.append(NamedImage(stem_of(file[0]), image))
            pixels += image.shape[0] * image.shape[1]
        if problems:
            normals.clear()
        if pixels > limits.max_total_pixels:
            problems.append(_too_many_pixels(limits))
            break
    if problems:
        raise UsageError(problems, "the defect-free images cannot be used")
    return ImageSet(normals, notes.sentences())


def _matched(masks: NamedFiles, images: NamedFiles, problems: list[str]) -> NamedFiles:
    """Masks by the stem of their image: their own stem, or else that without the suffix."""
    matched: dict[str, tuple[str, Source]] = {}
    # A mask called exactly like an image comes first, so that the one too many is the one with a suffix.
    for stem, file in sorted(masks.items(), key=lambda item: item[0] not in images):
        key = stem if stem in images else _MASK_SUFFIX.sub("", stem)
        if key in matched:
            problems.append(f"masks {matched[key][0]} and {file[0]} belong to the same image: keep one of them")
        else:
            matched[key] = file
    return matched


def _unpaired(images: NamedFiles, masks: NamedFiles) -> list[str]:
    problems = []
    if lonely := [images[stem][0] for stem in sorted(images.keys() - masks.keys())]:
        problems.append(
            f"{counted(len(lonely), 'image')} without a mask: {enumerated(lonely)}; "
            f"a mask of {lonely[0]} would be called {stem_of(lonely[0])}.png or {stem_of(lonely[0])}_mask.png"
        )
    if lonely := [masks[stem][0] for stem in sorted(masks.keys() - images.keys())]:
        problems.append(
            f"{counted(len(lonely), 'mask')} without an image: {enumerated(lonely)}; "
            "a mask has the name of its image, with or without _mask at the end"
        )
    return problems


def _miscounted(count: int, limits: ImageLimits) -> list[str]:
    found = f"{counted(count, 'pair')} of image and mask"
    if count < limits.min_pairs:
        return [f"{found}: at least {limits.min_pairs} are needed, 3 to 10 are recommended"]
    if count > limits.max_pairs:
        return [f"{found}: at most {limits.max_pairs} are accepted, 3 to 10 are recommended"]
    return []


def _read_each(
    files: Sequence[tuple[tuple[str, Source], tuple[str, Source]]],
    limits: ImageLimits,
    notes: Notes,
    problems: list[str],
) -> list[Pair]:
    """Check every pair, and hold the pixels only as long as nothing is wrong."""
    pairs: list[Pair] = []
    first_with: dict[bytes, str] = {}
    pixels = 0
    for image_file, mask_file in files:
        image_name, mask_name = image_file[0], mask_file[0]
        read_one = _attempt(read_image, image_file, limits, problems)
        read_other = _attempt(read_mask, mask_file, limits, problems)
        if read_one is not None:
            image, conversions = read_one
            notes.add("image", image_name, conversions)
            twin = first_with.setdefault(_digest(image), image_name)
            if twin != image_name:
                problems.append(f"images {twin} and {image_name} are the same picture: keep one of them")
            pixels += image.shape[0] * image.shape[1]
        if read_other is not None:
            notes.add("mask", mask_name, read_other[1])
        if read_one is not None and read_other is not None:
            pair = Pair(stem_of(image_name), read_one[0], read_other[0])
            problems += _unequal(pair, image_name, mask_name)
            pairs.append(pair)
        if problems:
            pairs.clear()
        if pixels > limits.max_total_pixels:
            problems.append(_too_many_pixels(limits))
            break
    return pairs


def _attempt(
    read: Callable[[Source, str, ImageLimits], tuple[_Pixels, list[str]]],
    file: tuple[str, Source],
    limits: ImageLimits,
    problems: list[str],
) -> tuple[_Pixels, list[str]] | None:
    name, source = file
    try:
        return read(source, name, limits)
    except UsageError as error:
        problems += error.problems
        return None


def _digest(image: ImageArray) -> bytes:
    """Of the pixels, not of the file: a picture that was saved twice is one picture."""
    digest = hashlib.sha256(f"{image.shape}".encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.digest()


def _unequal(pair: Pair, image_name: str, mask_name: str) -> list[str]:
    (height, width), (mask_height, mask_width) = pair.image.shape[:2], pair.mask.shape
    if (height, width) == (mask_height, mask_width):
        return []
    sizes = f"image {image_name} is {width}×{height} pixels, but mask {mask_name} is {mask_width}×{mask_height}"
    if (height, width) == (mask_width, mask_height):
        return [f"{sizes}: one of them is turned by 90°, perhaps by an EXIF orientation"]
    return [f"{sizes}: they must have the same size"]


def _too_many_pixels(limits: ImageLimits) -> str:
    most = limits.max_total_pixels / 1e6
    return (
        f"the images have more than {most:g} megapixels together, the most that is held at once; use fewer or smaller"
    )
