"""Reads what `pairforge generate` is told about places: a folder of masks to fill, and the allowed region."""

from __future__ import annotations

from pathlib import Path

from model.cli.checks import OWN_FILES
from model.data.places import GivenMask, Places
from service.core.errors import UsageError
from service.core.object_keys import Upload
from service.core.uploads.images import read_mask
from service.core.uploads.listing import Notes, listed, stem
from service.core.uploads.problems import FileProblem


def read_places(masks: Path | None, allowed: Path | None) -> tuple[Places, list[str]]:
    """Read the masks to fill, in the order of their names, and the allowed region; also returns notes.

    Raises:
        UsageError: lists all problems of all files.
    """
    notes = Notes()
    problems: list[str] = []
    given: list[GivenMask] = []
    region = None
    if masks is not None:
        found: list[FileProblem] = []
        files = listed(Upload.MASKS, masks, notes, found)
        problems += [problem.brief for problem in found]
        if not files and not problems:
            problems.append(f"{masks} holds no masks to fill: --place takes a folder of pictures, white = defect")
        for name, source in files.items():
            try:
                mask, decisions = read_mask(source, name, OWN_FILES)
            except UsageError as error:
                problems += error.problems
                continue
            notes.add("mask", name, decisions)
            given.append(GivenMask(stem(name), mask))
    if allowed is not None:
        try:
            region, decisions = read_mask(allowed, allowed.name, OWN_FILES)
            notes.add("mask", allowed.name, decisions)
        except UsageError as error:
            problems += error.problems
    if problems:
        problems += [problem.brief for problem in notes.left_out()]
        raise UsageError(problems, "The places cannot be used")
    return Places(tuple(given), region), notes.sentences()
