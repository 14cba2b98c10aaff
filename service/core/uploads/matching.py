"""Matches the masks of a data set with its images, several masks of one image included."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from service.core.object_keys import Upload
from service.core.uploads.listing import NamedSource, Notes
from service.core.uploads.names import Kinds, by_beginning, by_task, image_of
from service.core.uploads.problems import FileProblem, enumerated

NamedFiles = Mapping[str, NamedSource]
"""Stem → name and file."""


@dataclass(frozen=True, slots=True)
class Matched:
    """Masks by the stem of their image, or by their own if they have none.

    Attributes:
        guessed: stems of images whose masks were matched in order, which the pictures must confirm.
    """

    masks: dict[str, list[NamedSource]]
    guessed: frozenset[str]


def matched(masks: NamedFiles, images: NamedFiles, notes: Notes, problems: list[FileProblem]) -> Matched:
    """Match masks with images by their names; masks that name several kinds of defect are a problem."""
    image_by_mask = {stem: image_of(stem, images) for stem in masks}
    lonely = [stem for stem, image in image_by_mask.items() if image is None]
    without_mask = images.keys() - {*image_by_mask.values()}
    guessed: frozenset[str] = frozenset()
    more: Kinds | None = by_beginning(lonely, without_mask, images)
    if more is None and (more := by_task(lonely, without_mask)) is not None:
        guessed = frozenset(without_mask)
    if more is not None:
        image_by_mask |= more.images
        for stem in more.images:
            notes.add("mask", masks[stem][0], [_guess(more)])
        if len(more.kinds) > 1:
            problems.append(
                FileProblem.naming(
                    f"the masks are named after {len(more.kinds)} kinds of defect, {enumerated(sorted(more.kinds))}, "
                    "but an adapter learns only one: give the masks of one kind, not all of",
                    Upload.MASKS,
                    [masks[stem][0] for stem in more.images],
                    "",
                )
            )
    found: dict[str, list[NamedSource]] = {}
    for stem, file in masks.items():
        found.setdefault(image_by_mask[stem] or stem, []).append(file)
    for stem, files in found.items():
        if len(files) > 1:
            joined = "joined, because they belong to the same image"
            for name, _ in files:
                notes.add("mask", name, [f"{joined} {images[stem][0]}"])
    return Matched(found, guessed)


def _guess(found: Kinds) -> str:
    if not found.suffixes:
        return "matched in the order of Label Studio's tasks, which the pictures confirm"
    suffixes = enumerated(sorted(found.suffixes))
    return f"taken for the mask of the image that its name begins with; what follows is {suffixes}"
