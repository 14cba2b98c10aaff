"""Builds pairs of the files as read: decides and joins masks, and orients images as their masks were drawn."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from service.core.errors import UsageError
from service.core.object_keys import Upload
from service.core.uploads.images import ImageArray, MaskArray, Photograph, turning_note
from service.core.uploads.listing import Notes, stem
from service.core.uploads.mask_values import MaskLevels, Meaning, binary
from service.core.uploads.orientation import is_unturned, lie_on_their_own, unturned
from service.core.uploads.problems import FileProblem

EMPTY = (0,)
"""The values of a mask without a defect."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A real few-shot example, with the same fields as the model's `Pair`, which the service must not import.

    Attributes:
        name: the image's file stem.
        image: `(H, W, 3)` uint8.
        mask: `(H, W)` bool, True = defect; some of it, but not all.
    """

    name: str
    image: ImageArray
    mask: MaskArray


@dataclass(slots=True)
class Entry:
    """An image and its masks as read, before the masks are decided."""

    image_name: str
    photograph: Photograph
    masks: list[tuple[str, MaskLevels]]
    mask_notes: dict[str, list[str]] = field(default_factory=dict)


def unequal(entry: Entry) -> list[FileProblem]:
    """Report masks that fit the image neither with nor without its EXIF orientation."""
    height, width = entry.photograph.turned().shape[:2]
    fitting = {(height, width), entry.photograph.stored.shape[:2]}
    problems = []
    first = entry.masks[0][1].codes.shape
    for name, levels in entry.masks:
        mask_height, mask_width = levels.codes.shape
        sizes = f"image {entry.image_name} is {width}×{height} pixels, but mask {name} is {mask_width}×{mask_height}"
        rotated = (height, width) == (mask_width, mask_height)
        reason = "one of them is rotated by 90°, perhaps by EXIF" if rotated else "both must have the same size"
        if levels.codes.shape not in fitting or levels.codes.shape != first:
            files = (Upload.IMAGES, entry.image_name), (Upload.MASKS, name)
            problems.append(FileProblem.about(f"{sizes}: {reason}", *files))
    return problems


def paired(
    entries: list[Entry], guessed: Collection[str], meaning: Meaning, notes: Notes, problems: list[FileProblem]
) -> list[Pair]:
    """Build the pairs: decide and join the masks, and orient the images as the masks were drawn."""
    masks = [_joined(entry, meaning, problems) for entry in entries]
    if not problems:
        problems += _misplaced(
            [(entry, mask) for entry, mask in zip(entries, masks, strict=True) if entry.image_name in guessed]
        )
    if problems:
        return []
    oriented = [
        (entry.photograph, mask)
        for entry, mask in zip(entries, masks, strict=True)
        if entry.photograph.orientation != 1
    ]
    stored = is_unturned(oriented)
    del oriented
    pairs = []
    entries.reverse()
    for mask in masks:
        # Removed from the list, so that no picture is held in memory twice.
        entry = entries.pop()
        photograph = entry.photograph
        turning = turning_note(photograph.orientation)
        image = photograph.turned()
        fits_stored = unturned(photograph, mask, preferred=stored) if turning else False
        if fits_stored:
            image, turning = photograph.stored, ["EXIF orientation not applied, because its mask was drawn without it"]
        elif fits_stored is None:
            turning = ["EXIF orientation applied, but its mask fits about as well without: check the preview"]
        notes.add("image", entry.image_name, photograph.notes + turning)
        for name, remarks in entry.mask_notes.items():
            notes.add("mask", name, remarks)
        pairs.append(Pair(stem(entry.image_name), image, mask))
    return pairs


def _joined(entry: Entry, meaning: Meaning, problems: list[FileProblem]) -> MaskArray:
    """Join the masks of one image, whose notes are written to the entry."""
    joined = np.zeros(entry.masks[0][1].codes.shape, np.bool_)
    filled = [(name, levels) for name, levels in entry.masks if levels.values != EMPTY]
    for name, _ in entry.masks:
        entry.mask_notes[name] = ["empty, adds nothing to the others of its image"]
    for name, levels in filled or entry.masks[:1]:
        try:
            mask, decisions = binary(levels, meaning, f"mask {name}")
        except UsageError as error:
            problems += [FileProblem.about(problem, (Upload.MASKS, name)) for problem in error.problems]
            continue
        entry.mask_notes[name] = levels.notes + decisions
        joined |= mask
    return joined


def _misplaced(in_order: Sequence[tuple[Entry, MaskArray]]) -> list[FileProblem]:
    """Report masks that were matched with images in order, but do not lie on what these show."""
    if lie_on_their_own([(entry.photograph, mask) for entry, mask in in_order]):
        return []
    names = [name for entry, _ in in_order for name, _ in entry.masks]
    after = " do not name their images, and the pictures do not tell which belongs to which: rename them like "
    like = f"{stem(in_order[0][0].image_name)}_mask_0.png"
    return [FileProblem.naming("the masks", Upload.MASKS, names, after + like)]
