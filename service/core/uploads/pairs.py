"""Reads and pairs images and masks of uploads or folders, and reports all problems at once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from service.core.errors import UsageError
from service.core.object_keys import Upload
from service.core.uploads.assembly import EMPTY, Entry, Pair, paired, unequal
from service.core.uploads.brightness import Deep, common_range
from service.core.uploads.decoding import ImageLimits, Source, content, decoding, deep_values, is_same_file
from service.core.uploads.images import ImageArray, Photograph, read_levels, read_photograph, turning_note
from service.core.uploads.layouts import normals_folder, pair_folders
from service.core.uploads.listing import Files, NamedSource, Notes, by_stem, counted, elsewhere, listed
from service.core.uploads.listing import stem as stem_of
from service.core.uploads.mask_values import MaskLevels, Meaning, binary, meaning_of
from service.core.uploads.matching import Matched, NamedFiles, matched
from service.core.uploads.names import TASK_EXPORT
from service.core.uploads.problems import FileProblem, UnusableFilesError
from service.core.uploads.reading import Range, Reading

_Match = tuple[NamedSource | None, Sequence[NamedSource]]
"""An image and its masks; either may be missing."""

_Pixels = TypeVar("_Pixels")


@dataclass(frozen=True, slots=True)
class PairSet:
    """The pairs, sorted by name, and one sentence per conversion, omission or oddity.

    Attributes:
        brightness: the values that became black and white in images with more than 8 bits; None if there are none.
    """

    pairs: list[Pair]
    notes: list[str]
    brightness: Range | None = None


@dataclass(frozen=True, slots=True)
class NamedImage:
    """An `(H, W, 3)` uint8 image and its file stem."""

    name: str
    image: ImageArray


@dataclass(frozen=True, slots=True)
class ImageSet:
    """The images, sorted by name, and one sentence per conversion or omission.

    Attributes:
        brightness: as of a `PairSet`.
    """

    images: list[NamedImage]
    notes: list[str]
    brightness: Range | None = None


def shared_reading(
    reading: Reading,
    images: Files,
    masks: Files,
    normals: Files | None,
    limits: ImageLimits,
    others: Iterable[tuple[Files, Files]] = (),
) -> Reading:
    """Complete a reading with one brightness range for all images and normals, if none was chosen.

    Unreadable files are skipped here and reported when they are read.

    Args:
        others: images and masks of further defect types.
    """
    if reading.brightness is not None:
        return reading
    aside: list[FileProblem] = []
    pairs = [(images, masks), *others]
    sets = [(Upload.IMAGES, pair_folders(*each, Notes(), aside).images) for each in pairs]
    sets += [(Upload.NORMALS, normals_folder(normals, Notes()))] if normals is not None else []
    files = [file for use, given in sets for file in listed(use, given, Notes(), aside).items()]
    return replace(reading, brightness=_brightness(files, limits))


def read_pairs(images: Files, masks: Files, limits: ImageLimits, reading: Reading | None = None) -> PairSet:
    """Read images and their masks, paired by file stem.

    Upper and lower case do not matter. A mask has its image's name, with or without a suffix such as `_mask`, `_gt` or
    `_label` and a number; several masks of one image are joined. Hidden and system files are left out, and so are files
    in folders that are not pictures.

    Args:
        images: the whole defective images; one folder may contain both images and masks.
        masks: one or several per image.
        limits: limits of accepted images.
        reading: the user's choices for files that can be understood in several ways.

    Raises:
        UnusableFilesError: lists all problems of all files.
    """
    reading = reading or Reading()
    selected = _select(images, masks, limits)
    notes, problems = selected.notes, selected.problems
    image_files, mask_files = selected.images, selected.matched.masks
    stems = sorted(image_files.keys() & mask_files.keys())
    lonely_images = [image_files[stem] for stem in sorted(image_files.keys() - mask_files.keys())]
    lonely_masks = [file for stem in sorted(mask_files.keys() - image_files.keys()) for file in mask_files[stem]]
    problems += [*_unpaired(lonely_images, lonely_masks), *_miscounted(len(stems), limits)]
    if len(stems) < limits.min_pairs:
        problems += [*elsewhere(Upload.IMAGES, images), *elsewhere(Upload.MASKS, masks)]
    # Files without a partner are checked, too, so that all mistakes are reported at once; the limit bounds the work.
    files: list[_Match] = [(image_files[stem], mask_files[stem]) for stem in stems[: limits.max_pairs]]
    files += [(image, []) for image in [*lonely_images, *selected.more_images][: limits.max_pairs]]
    files += [(None, [mask]) for mask in [*lonely_masks, *selected.more_masks][: limits.max_pairs]]
    if reading.brightness is None:
        reading = replace(reading, brightness=_brightness([image for image, _ in files if image], limits))
    guessed = frozenset(image_files[stem][0] for stem in selected.matched.guessed)
    pairs, deep = _read_each(files, guessed, limits, reading, notes, problems)
    if problems:
        raise UnusableFilesError([*problems, *notes.left_out()], "the images and masks cannot be used")
    return PairSet(pairs, notes.sentences(), reading.brightness if deep else None)


def read_normals(folder: Files, limits: ImageLimits, reading: Reading | None = None) -> ImageSet:
    """Read defect-free images; other files are left out.

    Args:
        folder: the images.
        limits: limits of accepted images; those of the number of pairs do not apply.
        reading: contains the brightness range, which should be that of the pairs.

    Raises:
        UnusableFilesError: there are no images, or lists all problems of all files.
    """
    notes = Notes()
    problems: list[FileProblem] = []
    folder = normals_folder(folder, notes)
    files, more = by_stem(Upload.NORMALS, listed(Upload.NORMALS, folder, notes, problems), problems)
    if not files and not problems:
        problems.append(FileProblem.about("there are no defect-free images: at least 1 is needed"))
        problems += elsewhere(Upload.NORMALS, folder)
    span = reading.brightness if reading is not None else None
    span = span or _brightness([*files.values(), *more], limits)
    normals: list[NamedImage] = []
    pixels, deep = 0, False
    for file in [*(file for _, file in sorted(files.items())), *more]:
        photograph = _attempt(_photograph_in(span, "normal image"), Upload.NORMALS, file, limits, problems)
        if photograph is not None:
            notes.add("normal image", file[0], photograph.notes + turning_note(photograph.orientation))
            image = photograph.turned()
            deep = deep or photograph.brightness is not None
            normals.append(NamedImage(stem_of(file[0]), image))
            pixels += image.shape[0] * image.shape[1]
        if problems:
            normals.clear()
        if pixels > limits.max_total_pixels:
            problems.append(_too_many_pixels(limits, file[0]))
            break
    if problems:
        raise UnusableFilesError([*problems, *notes.left_out()], "the defect-free images cannot be used")
    return ImageSet(normals, notes.sentences(), span if deep else None)


def _brightness(files: Iterable[NamedSource], limits: ImageLimits) -> Range | None:
    """Choose a common range for all files with more than 8 bits; None if there are none."""
    return common_range(_deep(files, limits))


def _deep(files: Iterable[NamedSource], limits: ImageLimits) -> Iterator[Deep]:
    for name, source in files:
        if isinstance(source, Path | bytes):
            with suppress(UsageError), decoding(name):
                values = deep_values(content(source, name, limits), name, limits)
                if values is not None:
                    yield values


@dataclass(frozen=True, slots=True)
class _Selected:
    """The files that count, before any pixel is read.

    Attributes:
        images: stem → name and file.
        more_images, more_masks: files whose stem another one has, too.
    """

    images: dict[str, NamedSource]
    matched: Matched
    more_images: list[NamedSource]
    more_masks: list[NamedSource]
    notes: Notes
    problems: list[FileProblem]


def _select(images: Files, masks: Files, limits: ImageLimits) -> _Selected:
    notes = Notes()
    problems: list[FileProblem] = []
    folders = pair_folders(images, masks, notes, problems)
    image_files, more_images = by_stem(Upload.IMAGES, listed(Upload.IMAGES, folders.images, notes, problems), problems)
    mask_files, more_masks = by_stem(Upload.MASKS, listed(Upload.MASKS, folders.masks, notes, problems), problems)
    found = matched(mask_files, image_files, notes, problems)
    if folders.mixed:
        image_files, with_defect = _defective(image_files, found.masks, limits, notes)
        found = Matched(with_defect, found.guessed)
    return _Selected(image_files, found, more_images, more_masks, notes, problems)


def files_to_send(
    images: Files, masks: Files, limits: ImageLimits
) -> tuple[dict[str, Path], dict[str, Path], list[str]]:
    """Find the images and masks that `read_pairs` would read, for a program that uploads them.

    Returns:
        Images and masks by the name that they are sent with, and one sentence per omission.

    Raises:
        UnusableFilesError: a folder cannot be read, or contains several kinds of defect.
    """
    selected = _select(images, masks, limits)
    if selected.problems:
        raise UnusableFilesError([*selected.problems, *selected.notes.left_out()])
    return (
        dict(_paths([*selected.images.values(), *selected.more_images])),
        dict(_paths([*(file for files in selected.matched.masks.values() for file in files), *selected.more_masks])),
        selected.notes.sentences(),
    )


def _paths(files: Iterable[NamedSource]) -> Iterator[tuple[str, Path]]:
    return ((name, source) for name, source in files if isinstance(source, Path))


def _defective(
    images: NamedFiles, masks: Mapping[str, list[NamedSource]], limits: ImageLimits, notes: Notes
) -> tuple[dict[str, NamedSource], dict[str, list[NamedSource]]]:
    """Select the pairs with a non-empty mask, from a folder that also contains defect-free pictures."""
    kept = dict(masks)
    for stem, files in masks.items():
        with suppress(UsageError):
            if stem in images and all(read_levels(file, name, limits).values == EMPTY for name, file in files):
                notes.add("image", images[stem][0], ["left out because its mask is empty; give such images as normals"])
                del kept[stem]
    return {stem: file for stem, file in images.items() if stem in kept or stem not in masks}, kept


def _unpaired(images: Sequence[NamedSource], masks: Sequence[NamedSource]) -> list[FileProblem]:
    problems = []
    if names := [name for name, _ in images]:
        before = f"{counted(len(names), 'image')} without a mask:"
        after = f"; the mask of {names[0]} must be named {stem_of(names[0])}.png or {stem_of(names[0])}_mask.png"
        problems.append(FileProblem.naming(before, Upload.IMAGES, names, after))
    if names := [name for name, _ in masks]:
        before = f"{counted(len(names), 'mask')} without an image:"
        after = "; name a mask like its image, with or without _mask, _gt or _label at the end"
        if any(TASK_EXPORT.match(name) for name in names):
            after = "; Label Studio's names do not contain the image's: rename them like 000_mask_0.png, 000_mask_1.png"
        problems.append(FileProblem.naming(before, Upload.MASKS, names, after))
    return problems


def _miscounted(count: int, limits: ImageLimits) -> list[FileProblem]:
    found = f"{counted(count, 'pair')} of image and mask"
    better = f", {limits.recommended} are recommended" if limits.recommended else ""
    if count < limits.min_pairs:
        needed = "is needed" if limits.min_pairs == 1 else "are needed"
        return [FileProblem.about(f"{found}: at least {limits.min_pairs} {needed}{better}")]
    if count > limits.max_pairs:
        return [FileProblem.about(f"{found}: at most {limits.max_pairs} are accepted{better}")]
    return []


def _read_each(
    files: Sequence[_Match],
    guessed: Collection[str],
    limits: ImageLimits,
    reading: Reading,
    notes: Notes,
    problems: list[FileProblem],
) -> tuple[list[Pair], bool]:
    """Check every file; the pixels are kept only while there is no problem.

    Returns:
        The pairs, and whether an image has more than 8 bits.
    """
    entries: list[Entry] = []
    without_pixels: list[tuple[str, MaskLevels]] = []
    first_with: dict[bytes, str] = {}
    pixels, deep = 0, False
    for image_file, mask_files in files:
        photograph = _attempt(_photograph_in(reading.brightness), Upload.IMAGES, image_file, limits, problems)
        masks = []
        for file in mask_files:
            read = _levels_in(reading, alone=len(mask_files) == 1)
            levels = _attempt(read, Upload.MASKS, file, limits, problems)
            if levels is not None:
                masks.append((file[0], levels))
                without_pixels.append((file[0], replace(levels, codes=levels.codes[:0].copy())))
            if image_file is not None and is_same_file(image_file[1], file[1]):
                detail = f"mask {file[0]} is the same file as image {image_file[0]}: a picture cannot be its own mask"
                problems.append(FileProblem.about(detail, (Upload.MASKS, file[0]), (Upload.IMAGES, image_file[0])))
        if image_file is not None and photograph is not None:
            name = image_file[0]
            deep = deep or photograph.brightness is not None
            twin = first_with.setdefault(_digest(photograph.stored), name)
            if twin != name:
                after = " are the same picture: keep one of them"
                problems.append(FileProblem.naming("images", Upload.IMAGES, [twin, name], after))
            pixels += photograph.stored.shape[0] * photograph.stored.shape[1]
            if mask_files and len(masks) == len(mask_files):
                entries.append(Entry(name, photograph, masks))
                problems += unequal(entries[-1])
        if problems:
            entries.clear()
        del photograph, masks
        if image_file is not None and pixels > limits.max_total_pixels:
            problems.append(_too_many_pixels(limits, image_file[0]))
            break
    meaning = _meaning(without_pixels, reading, problems)
    return [] if problems else paired(entries, guessed, meaning, notes, problems), deep


def _photograph_in(span: Range | None, kind: str = "image") -> Callable[[Source, str, ImageLimits], Photograph]:
    return lambda source, name, limits: read_photograph(source, name, limits, span, kind=kind)


def _levels_in(reading: Reading, *, alone: bool) -> Callable[[Source, str, ImageLimits], MaskLevels]:
    def read(source: Source, name: str, limits: ImageLimits) -> MaskLevels:
        levels = read_levels(source, name, limits)
        if reading.mask_values is None and (alone or levels.values != EMPTY):
            # A mistake that does not depend on the other masks is reported together with the others.
            binary(levels, Meaning(), f"mask {name}")
        return levels

    return read


def _meaning(masks: Sequence[tuple[str, MaskLevels]], reading: Reading, problems: list[FileProblem]) -> Meaning:
    try:
        return meaning_of([levels for _, levels in masks], reading.mask_values)
    except UsageError as error:
        files = [(Upload.MASKS, name) for name, _ in masks]
        problems += [FileProblem.about(problem, *files) for problem in error.problems]
        return Meaning()


def _attempt(
    read: Callable[[Source, str, ImageLimits], _Pixels],
    use: Upload,
    file: NamedSource | None,
    limits: ImageLimits,
    problems: list[FileProblem],
) -> _Pixels | None:
    if file is None:
        return None
    name, source = file
    try:
        return read(source, name, limits)
    except UsageError as error:
        problems += [FileProblem.about(problem, (use, name)) for problem in error.problems]
        return None


def _digest(image: ImageArray) -> bytes:
    """Hash the pixels and not the file, so that a picture that was saved twice is recognised."""
    digest = hashlib.sha256(f"{image.shape}".encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.digest()


def _too_many_pixels(limits: ImageLimits, last: str) -> FileProblem:
    most = limits.max_total_pixels / 1e6
    return FileProblem.about(
        f"the images up to {last} have more than {most:g} megapixels together, which is the limit; use fewer or "
        "smaller ones (the files after it were not checked)"
    )
