"""Reads the real data of an evaluation: few-shot pairs and normal photographs, and the held-out ones.

Pixels are read as `pairforge train` reads them. The brightness range of pictures with more than 8 bits comes from the
training photographs alone, because nothing of the held-out ones may be known before they are measured.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from model.adapter_card import describe_pair, image_hash
from model.data.placement import NormalImage
from model.evaluation.layouts import FEWEST_TRAINING, DefectFiles, FoundFiles, find_files
from model.evaluation.leaks import note_same_parts
from model.types import ImageArray, Pair
from service.core.errors import UsageError
from service.core.object_keys import Upload
from service.core.strict_json import to_json
from service.core.uploads.decoding import ImageLimits, Source
from service.core.uploads.images import read_levels
from service.core.uploads.listing import Notes, counted, key_of, listed, stem
from service.core.uploads.names import image_of
from service.core.uploads.pairs import read_normals, read_pairs, shared_reading
from service.core.uploads.problems import FileProblem
from service.core.uploads.reading import Reading

LIMITS = ImageLimits(
    min_pairs=0, max_pairs=10_000, max_file_bytes=200 * 10**6, max_pixels=178 * 10**6, max_total_pixels=3 * 10**9
)
"""Limits for either side of each defect type and of the normal photographs: three gigapixels take 9 GB. How many pairs
there must be is a question of the split."""

_Photograph = TypeVar("_Photograph", Pair, NormalImage)


@dataclass(frozen=True, slots=True)
class DefectSplit:
    """The pairs of one defect type.

    Attributes:
        train: the few shots.
        test: the held-out ones.
        groups: names of the pairs that show one physical part, part by part; others show parts of their own.
    """

    train: list[Pair]
    test: list[Pair]
    groups: list[list[str]] = field(default_factory=list)

    @property
    def held_out_parts(self) -> list[list[Pair]]:
        """The held-out pairs of each physical part."""
        part_of = {name: number for number, group in enumerate(self.groups) for name in group}
        parts: dict[int | str, list[Pair]] = {}
        for pair in self.test:
            parts.setdefault(part_of.get(pair.name, pair.name), []).append(pair)
        return list(parts.values())


@dataclass(frozen=True, slots=True)
class EvaluationData:
    """The real data of an evaluation.

    Attributes:
        name: the folder's name.
        layout: "pairforge", "MVTec AD" or "VisA".
        defects: defect type → its pairs.
        normals_train, normals_test: defect-free photographs; may be empty.
        notes: sentences about conversions, omissions and the split.
        digest: sha256 of all pixels, names, the split and the groups.
        same_parts: those of the notes that doubt the split, because a part seems to train and test.
    """

    name: str
    layout: str
    defects: dict[str, DefectSplit]
    normals_train: list[NormalImage]
    normals_test: list[NormalImage]
    notes: list[str]
    digest: str
    same_parts: list[str] = field(default_factory=list)


def read_evaluation_data(
    folder: Path, types: Sequence[str] = (), reading: Reading | None = None, without: Sequence[str] = ()
) -> EvaluationData:
    """Read a folder of real photographs that is split by physical part.

    Args:
        folder: ours with a `splits.json`, a category of MVTec AD, or a category of VisA.
        types: the defect types to read; all of them if empty.
        reading: the user's choices for files that can be understood in several ways.
        without: photographs to leave out, see `leave_out`.

    Raises:
        UsageError: the folder has none of the layouts, files cannot be read, or a photograph trains and tests; lists
            all problems.
    """
    found = find_files(folder, types)
    reading = _completed(reading or Reading(), found)
    notes, problems = list(found.notes), list[str]()
    defects = {}
    for kind, files in found.defects.items():
        try:
            defects[kind] = _read_defect(kind, files, reading, notes)
        except UsageError as error:
            problems += [f"{kind}: {problem}" for problem in error.problems]
    normals = []
    for healthy in (found.normals.train, found.normals.test):
        try:
            normals.append(_read_normals(healthy, reading, notes))
        except UsageError as error:
            problems += [f"normal photographs: {problem}" for problem in error.problems]
    if problems:
        raise UsageError(problems, f"{folder} cannot be evaluated")
    data = leave_out(_assembled(folder.resolve().name, found.layout, defects, normals, notes), without)
    _refuse_leaks(data, "keep one, for example with --without {other}")
    return data


def assemble_data(
    name: str,
    layout: str,
    defects: dict[str, DefectSplit],
    normals: Sequence[list[NormalImage]],
    notes: Sequence[str] = (),
) -> EvaluationData:
    """Put together photographs that are split already.

    Args:
        normals: those to train on, and those to test on.
        notes: on what was read.

    Raises:
        UsageError: a photograph trains and tests; lists all that do.
    """
    data = _assembled(name, layout, defects, normals, notes)
    _refuse_leaks(data, "keep one")
    return data


def _assembled(
    name: str,
    layout: str,
    defects: dict[str, DefectSplit],
    normals: Sequence[list[NormalImage]],
    notes: Sequence[str],
) -> EvaluationData:
    notes = list(notes)
    for side, pictures in zip(("train", "test"), normals, strict=True):
        if not pictures:
            notes.append(f"there are no normal photographs to {side} on")
    sides = [_described(defects, normals, side) for side in (0, 1)]
    same = note_same_parts(*(_named(defects, normals, side) for side in (0, 1)))
    notes += same
    groups = {kind: split.groups for kind, split in defects.items()}
    digest = hashlib.sha256(to_json([layout, sides, groups], sort_keys=True).encode()).hexdigest()
    return EvaluationData(name, layout, defects, normals[0], normals[1], _condensed(notes), digest, same)


def leave_out(data: EvaluationData, names: Sequence[str]) -> EvaluationData:
    """Leave out photographs, such as those that turn out to show one part on both sides.

    Args:
        names: `<defect type>/<name>` or `normal/<name>` each, the name without its ending. Where such a name is one
            of both sides, `train/` or `test/` stands before it.

    Raises:
        UsageError: naming what is no photograph of the data or several, or the types of which too few would be left.
    """
    if not names:
        return data
    gone, problems = _found(data, names)

    def kept(side: str, kind: str, photographs: Sequence[_Photograph]) -> list[_Photograph]:
        return [each for each in photographs if f"{side}/{kind}/{stem(each.name)}" not in gone]

    defects = {
        kind: replace(split, train=kept("train", kind, split.train), test=kept("test", kind, split.test))
        for kind, split in data.defects.items()
    }
    normals = kept("train", "normal", data.normals_train), kept("test", "normal", data.normals_test)
    problems += [
        f"{kind}: {counted(len(split.train), 'photograph')} to train on and {len(split.test)} to test on would be "
        f"left; at least {FEWEST_TRAINING} and 1 are needed"
        for kind, split in defects.items()
        if len(split.train) < FEWEST_TRAINING or not split.test
    ]
    if problems:
        raise UsageError(problems, "these photographs cannot be left out")
    digest = hashlib.sha256(to_json([data.digest, sorted(gone)]).encode()).hexdigest()
    same = note_same_parts(*(_named(defects, normals, side) for side in (0, 1)))
    notes = [note for note in data.notes if note not in data.same_parts] + same
    notes.append(f"left out as wanted: {', '.join(sorted(names))}")
    return replace(
        data,
        defects=defects,
        normals_train=normals[0],
        normals_test=normals[1],
        notes=notes,
        digest=digest,
        same_parts=same,
    )


def _found(data: EvaluationData, names: Sequence[str]) -> tuple[set[str], list[str]]:
    """Find photographs by their names; returns them as `<side>/<kind>/<name>`, and what is wrong with the names."""
    short = [(side, f"normal/{stem(each.name)}") for side, each in _sided(data.normals_train, data.normals_test)]
    for kind, split in data.defects.items():
        short += [(side, f"{kind}/{stem(each.name)}") for side, each in _sided(split.train, split.test)]
    known: dict[str, list[str]] = {}
    for side, name in short:
        for each in (name, f"{side}/{name}"):
            known.setdefault(each, []).append(f"{side}/{name}")
    problems = []
    for name in sorted(set(names)):
        found = known.get(name, [])
        if not found:
            problems.append(f"{name} is no photograph of {data.name} that trains or tests")
        elif len(found) > 1:
            problems.append(f"{name} is {counted(len(found), 'photograph')}: name {' or '.join(found)}")
    return {found[0] for name in names if len(found := known.get(name, [])) == 1}, problems


def _sided(train: Sequence[_Photograph], test: Sequence[_Photograph]) -> list[tuple[str, _Photograph]]:
    return [("train", each) for each in train] + [("test", each) for each in test]


def _condensed(notes: Sequence[str]) -> list[str]:
    """Keep the first of the notes that differ only in names of files and in numbers, and say how many there are."""
    alike: dict[str, list[str]] = {}
    for note in notes:
        alike.setdefault(re.sub(r"(?:mask|image)s? .*?: |\d+|s\b", "", note), []).append(note)
    return [
        same[0] + (f" (and {counted(len(same) - 1, 'similar note')})" if len(same) > 1 else "")
        for same in alike.values()
    ]


def _completed(reading: Reading, found: FoundFiles) -> Reading:
    """Complete the user's choices by the training photographs' brightness range."""
    images = {
        f"{kind}/{name}": source
        for kind, files in found.defects.items()
        for name, source in files.images.items()
        if stem(name) in files.division.train
    }
    return shared_reading(reading, images, {}, found.normals.train, LIMITS)


def _read_defect(kind: str, files: DefectFiles, reading: Reading, notes: list[str]) -> DefectSplit:
    """Read the pairs of both sides, each by itself: no held-out mask decides what the others mean.

    Raises:
        UsageError: lists all problems of both sides.
    """
    remarks, wrong = Notes(), list[FileProblem]()
    masks = listed(Upload.MASKS, files.masks, remarks, wrong)
    notes += [f"{kind}: {note}" for note in remarks.sentences()]
    keys = {key_of(name): name for name in files.images}
    owner = {name: keys.get(image_of(key_of(name), keys) or "") for name in masks}
    if lonely := [name for name, image in owner.items() if image is None]:
        wrong.append(FileProblem.naming(f"{counted(len(lonely), 'mask')} without an image:", Upload.MASKS, lonely, ""))
    problems, sides = [problem.brief for problem in wrong], []
    for names in (files.division.train, files.division.test):
        images = {name: source for name, source in files.images.items() if stem(name) in names}
        own = {name: source for name, source in masks.items() if owner[name] in images}
        values = _class_values(own) if files.class_masks and reading.mask_values is None else reading.mask_values
        try:
            found = read_pairs(images, own, LIMITS, replace(reading, mask_values=values))
        except UsageError as error:
            problems += error.problems
            continue
        notes += [f"{kind}: {note}" for note in found.notes]
        pairs = {pair.name: Pair(pair.name, pair.image, pair.mask) for pair in found.pairs}
        sides.append([pairs[name] for name in names])
    if problems:
        raise UsageError(list(dict.fromkeys(problems)))
    return DefectSplit(sides[0], sides[1], files.division.groups or [])


def _class_values(masks: Mapping[str, Source]) -> frozenset[int] | None:
    """Return the numbers of all classes in masks; those that cannot be read are reported when they are paired."""
    values: set[int] = set()
    for name, source in masks.items():
        with suppress(UsageError):
            values.update(read_levels(source, name, LIMITS).values)
    return frozenset(values - {0}) or None


def _read_normals(files: Mapping[str, Source], reading: Reading, notes: list[str]) -> list[NormalImage]:
    if not files:
        return []
    found = read_normals(files, LIMITS, reading)
    notes += found.notes
    return [NormalImage(normal.name, normal.image) for normal in found.images]


Described = dict[str, list[dict[str, object]]]
"""Defect type, or "normal photographs" → name and hashes of each photograph."""


def _described(defects: Mapping[str, DefectSplit], normals: Sequence[list[NormalImage]], side: int) -> Described:
    """Describe all that trains (side 0) or tests (side 1)."""
    found: Described = {
        kind: [describe_pair(pair) for pair in (split.train, split.test)[side]] for kind, split in defects.items()
    }
    found["normal photographs"] = [
        {"name": normal.name, "image_sha256": image_hash(normal.image)} for normal in normals[side]
    ]
    return found


def _named(
    defects: Mapping[str, DefectSplit], normals: Sequence[list[NormalImage]], side: int
) -> list[tuple[str, ImageArray]]:
    pairs = [
        (f"{kind} {pair.name}", pair) for kind, split in defects.items() for pair in (split.train, split.test)[side]
    ]
    healthy = [(f"normal {normal.name}", normal.image) for normal in normals[side]]
    return [(name, pair.image) for name, pair in pairs] + healthy


def _refuse_leaks(data: EvaluationData, advice: str) -> None:
    """Refuse a photograph that trains and tests, whatever its names are and whichever types it stands under.

    Args:
        advice: what would be right, with `{other}` for the photograph that tests.
    """
    normals = data.normals_train, data.normals_test
    train, test = (_described(data.defects, normals, side) for side in (0, 1))
    trained = {item["image_sha256"]: f"{kind} {item['name']}" for kind, items in train.items() for item in items}
    leaks = [
        f"{trained[item['image_sha256']]} in train and {kind} {item['name']} in test are the same picture: "
        + advice.format(other=f"test/{kind if kind in data.defects else 'normal'}/{stem(str(item['name']))}")
        for kind, items in test.items()
        for item in items
        if item["image_sha256"] in trained
    ]
    if leaks:
        raise UsageError(leaks, f"{data.name} cannot be evaluated")
