"""Finds the photographs of an evaluation in a folder, and which of them train and which test.

Three layouts are read: ours with a `splits.json`, one category of MVTec AD, and one category of VisA.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AliasChoices, BaseModel, Field, ValidationError

from model.evaluation.parts import joined_groups, of_kind, parted
from service.core.errors import UsageError
from service.core.object_keys import Upload
from service.core.strict_json import to_json
from service.core.uploads.decoding import Source
from service.core.uploads.listing import Notes, counted, has_pictures, listed, stem
from service.core.uploads.problems import FileProblem, enumerated

SPLITS = "splits.json"

FEWEST_TRAINING = 2
"""An adapter is trained on at least so many pairs."""

VISA_NORMALS = 0.8
"""Share of VisA's normal photographs that train where its own split is not at hand."""

_MVTEC = ("train/good", "test", "ground_truth")
_VISA = ("Data/Images/Normal", "Data/Images/Anomaly", "Data/Masks/Anomaly")

NORMAL = "normal"
"""Kind and folder of the defect-free photographs."""

_LAYOUTS = f"""ours: <type>/image/*, <type>/mask/*.png, normal/image/* and {SPLITS}
MVTec AD, one category: train/good, test/<type>, test/good, ground_truth/<type>
VisA, one category: Data/Images/Normal, Data/Images/Anomaly, Data/Masks/Anomaly"""

_Value = TypeVar("_Value")


class Division(BaseModel):
    """Which photographs train and which test, by file stem; a group holds the photographs of one physical part."""

    train: list[str] = []
    test: list[str] = []
    groups: Annotated[list[list[str]] | None, Field(validation_alias=AliasChoices("groups", "tiles"))] = None


class _Splits(BaseModel):
    """The content of `splits.json`; other entries are ignored.

    Attributes:
        groups: photographs of one physical part that stand under several types, as `<type>/<stem>` or `normal/<stem>`.
    """

    defects: Annotated[dict[str, Division], Field(min_length=1)]
    normal: Annotated[Division, Field(validation_alias=AliasChoices("normal", "normals"))] = Division()
    groups: list[list[str]] = []

    @property
    def kinds(self) -> dict[str, Division]:
        """The divisions of all types, and that of the normal photographs."""
        return {**self.defects, NORMAL: self.normal}

    @property
    def parts(self) -> list[list[str]]:
        """The photographs of each physical part of which there are several, whatever their types."""
        own = [
            [f"{kind}/{stem}" for stem in group]
            for kind, division in self.kinds.items()
            for group in division.groups or []
        ]
        return joined_groups([*own, *self.groups])


@dataclass(frozen=True, slots=True)
class DefectFiles:
    """The files of one defect type.

    Attributes:
        images: by name.
        masks: their folder.
        division: of the images.
        class_masks: masks hold numbers of classes, and each class is defect.
    """

    images: dict[str, Source]
    masks: Path
    division: Division
    class_masks: bool = False


@dataclass(frozen=True, slots=True)
class NormalFiles:
    """Defect-free photographs by file name."""

    train: dict[str, Source]
    test: dict[str, Source]


@dataclass(frozen=True, slots=True)
class FoundFiles:
    """All files of an evaluation.

    Attributes:
        layout: the layout's name.
        notes: sentences about how the files were divided, and about files that are left out.
    """

    layout: str
    defects: dict[str, DefectFiles]
    normals: NormalFiles
    notes: list[str]


def find_files(folder: Path, types: Sequence[str] = ()) -> FoundFiles:
    """Find the files of an evaluation and divide them; pixels are not read.

    Args:
        folder: in one of the three layouts.
        types: the defect types to use; all of them if empty.

    Raises:
        UsageError: the layout is unknown or incomplete, or photographs of one part train and test; lists all problems.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder; give a folder of photographs in one of these layouts:\n{_LAYOUTS}")
    if (folder / SPLITS).is_file():
        return _ours(folder, types)
    if _has(folder, _MVTEC):
        return _mvtec(folder, types)
    if _has(folder, _VISA):
        return _visa(folder, types)
    raise UsageError(_why_unknown(folder))


def _has(folder: Path, parts: Iterable[str]) -> bool:
    return all((folder / part).is_dir() for part in parts)


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _why_unknown(folder: Path) -> str:
    """Say why a folder's layout is unknown, and what would be right."""
    inside = _subfolders(folder)
    categories = [path for path in inside if _has(path, _MVTEC) or _has(path, _VISA) or (path / SPLITS).is_file()]
    if categories:
        names = ", ".join(path.name for path in categories)
        return f"{folder} holds categories ({names}), but one is evaluated at a time: give {categories[0]}, for example"
    defects = [path for path in inside if _has(path, ("image", "mask"))]
    if defects:
        return (
            f"{folder} has no {SPLITS}, which says by file stem which photographs train and which test; all "
            f"photographs of one physical part must stand on the same side. For example:\n{_example(folder, defects)}"
        )
    return f"{folder} has none of the layouts that are read:\n{_LAYOUTS}"


def _example(folder: Path, defects: Sequence[Path]) -> str:
    def some(images: Path) -> dict[str, list[str]]:
        stems = _stems(listed(Upload.IMAGES, images, Notes(), []))
        third = max(min(FEWEST_TRAINING, len(stems) - 1), 0)
        return {"train": stems[:third], "test": stems[third : third + 2]}

    example = {
        "defects": {path.name: some(path / "image") for path in defects[:2]},
        "normal": some(folder / "normal" / "image")
        if (folder / "normal" / "image").is_dir()
        else Division().model_dump(),
    }
    return to_json(example, ensure_ascii=False)


def _ours(folder: Path, types: Sequence[str]) -> FoundFiles:
    path = folder / SPLITS
    try:
        splits = _Splits.model_validate_json(path.read_bytes())
    except ValidationError as error:
        wrong = [f"{path}: {'.'.join(map(str, item['loc'])) or 'content'}: {item['msg']}" for item in error.errors()]
        shape = (
            '{"defects": {"<type>": {"train": ["<stem>"], "test": ["<stem>"]}}, "normal": {"train": [], "test": []}}'
        )
        raise UsageError([*wrong, f"{path} must look like {shape}"]) from error
    notes, problems = Notes(), list[FileProblem]()
    defects = {
        name: DefectFiles(_pictures(folder / name / "image", notes, problems), folder / name / "mask", division)
        for name, division in _chosen(splits.defects, types, folder).items()
    }
    place = folder / NORMAL / "image"
    normals = _pictures(place, notes, problems) if place.is_dir() or splits.normal.train or splits.normal.test else {}
    wrong = [problem.brief for problem in problems]
    wrong += [
        sentence for name, files in defects.items() for sentence in _misdivided(name, files.images, files.division)
    ]
    wrong += _misdivided(NORMAL, normals, splits.normal)
    wrong += _misgrouped(splits, {**{name: files.images for name, files in defects.items()}, NORMAL: normals})
    if wrong:
        raise UsageError(wrong, f"{folder} cannot be evaluated")
    if splits.groups:
        parts = splits.parts
        defects = {
            name: replace(files, division=files.division.model_copy(update={"groups": of_kind(parts, name)}))
            for name, files in defects.items()
        }
    remarks = []
    for name, files in defects.items():
        if unused := len(files.images) - len(files.division.train) - len(files.division.test):
            remarks.append(f"{name}: left out {counted(unused, 'photograph')} in neither list of {SPLITS}")
    by_stem = {stem(name): (name, source) for name, source in normals.items()}
    divided = NormalFiles(*(dict(by_stem[name] for name in side) for side in (splits.normal.train, splits.normal.test)))
    return FoundFiles("pairforge", defects, divided, notes=remarks + notes.sentences())


def _misdivided(name: str, images: dict[str, Source], division: Division) -> list[str]:
    """List what is wrong with the division of one type, or of the normal photographs."""
    problems = []
    train, test, present = set(division.train), set(division.test), set(_stems(images))
    where = f"{SPLITS}, {name}"
    for side, names in (("train", division.train), ("test", division.test)):
        if twice := sorted({stem for stem in names if names.count(stem) > 1}):
            problems.append(f"{where}: {enumerated(twice)} stands twice in {side}; name each photograph once")
    if missing := sorted((train | test) - present):
        problems.append(
            f"{where}: {enumerated(missing)} is not in {name}/image; give file names without their ending, such as "
            f"{enumerated(sorted(present)[:2]) or '000 for 000.png'}"
        )
    if both := sorted(train & test):
        problems.append(f"{where}: {enumerated(both)} is in train and in test; keep it in one of them")
    if name != NORMAL:
        problems += _too_few(where, division)
    return problems


def _misgrouped(splits: _Splits, images: dict[str, dict[str, Source]]) -> list[str]:
    """List names in groups that are no photographs, and the parts that train and test, under one type or several."""
    present = {f"{kind}/{stem}" for kind, files in images.items() for stem in _stems(files)}
    unread = splits.kinds.keys() - images.keys()
    unknown = {name for group in splits.groups for name in group if name not in present}
    if lost := sorted(name for name in unknown if name.partition("/")[0] not in unread):
        such = enumerated(sorted(present)[:2])
        return [
            f"{SPLITS}, groups: {enumerated(lost)} is no photograph: give <type>/<name> or {NORMAL}/<name>, as {such}"
        ]
    sides = {kind: (set(splits.kinds[kind].train), set(splits.kinds[kind].test)) for kind in images}
    return [f"{SPLITS}: {sentence}" for sentence in parted(splits.parts, sides)]


def _too_few(where: str, division: Division) -> list[str]:
    problems = []
    if len(division.train) < FEWEST_TRAINING:
        problems.append(
            f"{where}: train has {counted(len(division.train), 'photograph')}; at least {FEWEST_TRAINING} are needed"
        )
    if not division.test:
        problems.append(f"{where}: test has no photographs; at least 1 is needed")
    return problems


def _mvtec(folder: Path, types: Sequence[str]) -> FoundFiles:
    notes, problems = Notes(), list[FileProblem]()
    known = {
        path.name: path
        for path in _subfolders(folder / "test")
        if path.name != "good" and has_pictures(path) and (folder / "ground_truth" / path.name).is_dir()
    }
    if not known:
        raise UsageError(f"{folder} has no test/<type> with masks in ground_truth/<type>")
    images = {name: _pictures(path, notes, problems) for name, path in _chosen(known, types, folder).items()}
    defects = {
        name: DefectFiles(files, folder / "ground_truth" / name, _first_third(files)) for name, files in images.items()
    }
    good = folder / "test" / "good"
    normals = NormalFiles(
        _pictures(folder / "train" / "good", notes, problems),
        _pictures(good, notes, problems) if good.is_dir() else {},
    )
    remark = (
        "MVTec AD: the first third of each type by name trains and the rest tests; the split that was released with "
        "the papers also tests on one photograph per type that it trains on, this one does not"
    )
    _refuse(folder, defects, problems)
    return FoundFiles("MVTec AD", defects, normals, notes=[remark, *notes.sentences()])


def _visa(folder: Path, types: Sequence[str]) -> FoundFiles:
    notes, problems = Notes(), list[FileProblem]()
    normal, anomaly, masks = (folder / part for part in _VISA)
    _chosen({"anomaly": anomaly}, types, folder)
    images = _pictures(anomaly, notes, problems)
    defects = {"anomaly": DefectFiles(images, masks, _first_third(images), class_masks=True)}
    _refuse(folder, defects, problems)
    pictures = _pictures(normal, notes, problems)
    table, category = folder.parent / "split_csv" / "1cls.csv", folder.resolve().name
    tested = _visa_test(table, category) if table.is_file() else set()
    if tested:
        how = f"by {table.name}"
    else:
        names = list(pictures)
        tested = set(names[round(VISA_NORMALS * len(names)) :])
        missing = f"does not list {category}" if table.is_file() else "is not beside the category"
        how = f"the first {VISA_NORMALS:.0%} by name train, because split_csv/1cls.csv {missing}"
    normals = NormalFiles(
        {name: source for name, source in pictures.items() if name not in tested},
        {name: source for name, source in pictures.items() if name in tested},
    )
    remark = f"VisA: the first third of the anomalies by name trains and the rest tests; normal photographs: {how}"
    return FoundFiles("VisA", defects, normals, notes=[remark, *notes.sentences()])


def _visa_test(table: Path, category: str) -> set[str]:
    """Read the names of a category's normal test photographs from VisA's table."""
    try:
        with table.open(encoding="utf-8", newline="") as file:
            return {
                Path(row["image"]).name
                for row in csv.DictReader(file)
                if (row["object"], row["split"], row["label"]) == (category, "test", "normal")
            }
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(
            f"{table} cannot be read ({error}); it must have the columns object, split, label and image"
        ) from error


def _first_third(images: dict[str, Source]) -> Division:
    """The papers' split: of n images by name, the first `n // 3` train."""
    stems = _stems(images)
    third = len(stems) // 3
    return Division(train=stems[:third], test=stems[third:])


def _refuse(folder: Path, defects: dict[str, DefectFiles], problems: Sequence[FileProblem]) -> None:
    wrong = [problem.brief for problem in problems]
    wrong += [
        f"{sentence} (a third of {len(files.images)}): add photographs, or leave the type out with --types"
        for name, files in defects.items()
        for sentence in _too_few(name, files.division)
    ]
    if wrong:
        raise UsageError(wrong, f"{folder} cannot be evaluated")


def _chosen(known: dict[str, _Value], types: Sequence[str], folder: Path) -> dict[str, _Value]:
    if unknown := [name for name in types if name not in known]:
        raise UsageError(f"{folder} has no defect type {enumerated(unknown)}; it has {enumerated(sorted(known))}")
    return {name: value for name, value in known.items() if not types or name in types}


def _pictures(folder: Path, notes: Notes, problems: list[FileProblem]) -> dict[str, Source]:
    return listed(Upload.IMAGES, folder, notes, problems)


def _stems(images: Iterable[str]) -> list[str]:
    return [stem(name) for name in images]
