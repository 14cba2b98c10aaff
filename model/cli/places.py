"""Reads what `pairforge generate` is told about places: a folder of masks to fill, allowed and forbidden regions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from model.cli.checks import OWN_FILES
from model.types import MaskArray
from service.core.errors import UsageError
from service.core.object_keys import Upload
from service.core.places import GivenMask, Photograph, Places, Region, find_normal
from service.core.uploads.decoding import Source
from service.core.uploads.images import read_mask
from service.core.uploads.listing import Notes, has_pictures, listed, stem
from service.core.uploads.problems import FileProblem, enumerated


def read_places(
    masks: Path | None, allowed: Path | None, forbidden: Path | None, normals: Sequence[Photograph] = ()
) -> tuple[Places, list[str]]:
    """Read the masks to fill, in the order of their names, and the regions; also returns notes.

    What is named like a normal's mask, such as `007_mask` or `007_GT`, is for that normal.

    Args:
        masks: a folder; its subfolders hold masks of the defect types that they are named like.
        allowed, forbidden: a mask for all normals, or a folder of masks that are named like the normals.
        normals: the photographs that defects are drawn on.

    Raises:
        UsageError: lists all problems of all files.
    """
    reader = _Reader()
    given: list[GivenMask] = []
    if masks is not None:
        types = sorted(path for path in masks.iterdir() if has_pictures(path)) if masks.is_dir() else []
        for folder in types:
            given += [GivenMask(f"{folder.name}/{name}", mask, folder.name) for name, mask in reader.folder(folder)]
        if has_pictures(masks) or not types:
            given += [GivenMask(name, mask) for name, mask in reader.folder(masks)]
        if not given and not reader.problems:
            reader.problems.append(
                f"{masks} holds no masks to fill: --place takes a folder of pictures, white = defect"
            )
    regions = [list(reader.regions(path, option)) for path, option in ((allowed, "allowed"), (forbidden, "forbidden"))]
    if reader.problems:
        reader.problems += [problem.brief for problem in reader.notes.left_out()]
        raise UsageError(reader.problems, "The places cannot be used")
    given = [_bound(each, normals) for each in given]
    allowed_regions, forbidden_regions = (tuple(_of_normal(region, normals) for region in each) for each in regions)
    notes = [*reader.notes.sentences(), *_on_any(given, normals)]
    return Places(tuple(given), allowed_regions, forbidden_regions), notes


def _bound(given: GivenMask, normals: Sequence[Photograph]) -> GivenMask:
    normal = find_normal(given.name, normals)
    return given if normal is None else replace(given, normal=normal.name)


def _of_normal(region: Region, normals: Sequence[Photograph]) -> Region:
    normal = None if region.normal is None else find_normal(region.normal, normals)
    return region if normal is None else replace(region, normal=normal.name)


def _on_any(given: Sequence[GivenMask], normals: Sequence[Photograph]) -> Iterator[str]:
    """Tell which masks are for no normal in particular."""
    free = [each.name for each in given if each.normal is None]
    if free and normals:
        masks, go = ("masks", "they go") if len(free) > 1 else ("mask", "it goes")
        yield f"{masks} {enumerated(free)}: named like no normal image, so {go} to any of the same size"


class _Reader:
    """Reads masks, and collects notes and problems."""

    def __init__(self) -> None:
        self.notes = Notes()
        self.problems: list[str] = []

    def regions(self, path: Path | None, option: str) -> Iterator[Region]:
        """Read a region for all normals, or one each."""
        if path is None:
            return
        if not path.is_dir():
            yield from (Region(mask) for mask in self._mask(path, path.name))
            return
        before = len(self.problems)
        found = [Region(mask, name) for name, mask in self.folder(path)]
        if not found and len(self.problems) == before:
            self.problems.append(f"{path} holds no masks: --{option} takes a mask, or a folder of one for each normal")
        yield from found

    def folder(self, folder: Path) -> Iterator[tuple[str, MaskArray]]:
        """Read the masks of a folder, with their names."""
        found: list[FileProblem] = []
        files = listed(Upload.MASKS, folder, self.notes, found)
        self.problems += [problem.brief for problem in found]
        for name, source in files.items():
            yield from ((stem(name), mask) for mask in self._mask(source, name))

    def _mask(self, source: Source, name: str) -> Iterator[MaskArray]:
        try:
            mask, decisions = read_mask(source, name, OWN_FILES)
        except UsageError as error:
            self.problems += error.problems
            return
        self.notes.add("mask", name, decisions)
        yield mask
