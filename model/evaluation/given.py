"""Reads pairs that exist already, from datasets of `pairforge generate` or the service."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
from PIL import Image

from model.adapter_card import image_hash
from model.evaluation.data import EvaluationData
from model.evaluation.sources import MadePairs
from model.export.inspection import read_dataset
from model.types import Candidate, ImageArray, anomaly_part
from service.core.errors import UsageError
from service.core.uploads.listing import counted

IDENTICAL = 0.5
"""Share of identical pixels outside the mask from which a pair lies on a photograph: others have other noise,
and generating changes a window only."""

NOTHING = MadePairs([], {"attempts": 0, "accepted": 0, "rejected": {}}, {})


def read_given_pairs(files: Sequence[Path]) -> dict[str, MadePairs]:
    """Read the pairs of datasets by their defect's name; several datasets of one defect are joined.

    A dataset of several types is divided by what its manifest says of each pair. It tells rejected candidates for all
    types together, so that they count under the first of them.

    Raises:
        UsageError: a file is no dataset, or not intact.
    """
    found: dict[str, MadePairs] = {}
    for path in files:
        for defect, made in _read_by_type(path, read_dataset(path).description).items():
            before = found.get(defect, NOTHING)
            found[defect] = MadePairs([*before.pairs, *made.pairs], _joined(before.counts, made.counts), {})
    return found


def _read_by_type(path: Path, description: Mapping[str, Any]) -> dict[str, MadePairs]:
    pairs: dict[str, list[Candidate]] = {}
    only = str(description["defect"])
    with ZipFile(path) as archive:
        for record in _records(archive):
            pairs.setdefault(record.get("defect", only), []).append(_read(archive, record))
    made = {}
    rejected = description["counts"]["rejected"]
    others = description["counts"]["attempts"] - description["counts"]["accepted"]
    for defect, each in sorted(pairs.items()):
        counts = {"attempts": len(each) + others, "accepted": len(each), "rejected": rejected}
        made[defect] = MadePairs(each, counts, {})
        rejected, others = {}, 0
    return made


def on_budget(given: Mapping[str, MadePairs], pairs: int) -> tuple[dict[str, MadePairs], list[str]]:
    """Bring given pairs to the number that other rows have, so that all rows have one budget.

    Args:
        pairs: per defect type; of more, as many are kept, evenly spread over all of them, the same every time.

    Returns:
        The pairs by defect type, and a sentence on each type that had another number.
    """
    kept, notes = dict(given), []
    for defect, made in given.items():
        count = len(made.pairs)
        if count > pairs:
            kept[defect] = replace(made, pairs=[made.pairs[number * count // pairs] for number in range(pairs)])
            notes.append(f"{defect}: {pairs} of the {count} given pairs are used, as many as every source makes")
        elif count < pairs:
            notes.append(f"{defect}: {counted(count, 'pair')} given; every other source makes {pairs}")
    return kept, notes


def refuse_held_out(files: Sequence[Path], data: EvaluationData) -> None:
    """Refuse datasets that come from held-out photographs, known by their pixels.

    Raises:
        UsageError: naming each dataset, and the photographs that its adapter learned from or that it is laid on.
    """
    held_out = {
        image_hash(pair.image): f"{kind} {pair.name}" for kind, split in data.defects.items() for pair in split.test
    }
    held_out |= {image_hash(normal.image): f"normal {normal.name}" for normal in data.normals_test}
    normals = {normal.name: normal.image for normal in data.normals_test}
    problems = []
    for path in files:
        with ZipFile(path) as archive:
            card = json.loads(archive.read("dataset.json"))["adapter"] or {}
            learned = [*card.get("data", []), *card.get("normals", [])]
            found = {held_out[each["image_sha256"]] for each in learned if each["image_sha256"] in held_out}
            found |= {
                f"normal {record['normal']}" for record in _records(archive) if _lies_on(archive, record, normals)
            }
        if found:
            problems.append(f"{path} was made with held-out photographs: {', '.join(sorted(found))}")
    if problems:
        raise UsageError(problems)


def _lies_on(archive: ZipFile, record: Mapping[str, Any], normals: Mapping[str, ImageArray]) -> bool:
    """Return whether a pair has, for the most part, the very pixels of the normal image of its normal's name."""
    normal = normals.get(record["normal"])
    if normal is None:
        return False
    pair = _read(archive, record)
    if pair.image.shape != normal.shape:
        return False
    return bool((pair.image == normal).all(2)[~pair.mask].mean() > IDENTICAL)


def _records(archive: ZipFile) -> list[dict[str, Any]]:
    return [json.loads(line) for line in archive.read("manifest.jsonl").splitlines()]


def _read(archive: ZipFile, record: Mapping[str, Any]) -> Candidate:
    with Image.open(io.BytesIO(archive.read(record["image"]))) as file:
        image = np.asarray(file.convert("RGB"))
    with Image.open(io.BytesIO(archive.read(record["mask"]))) as file:
        mask = np.asarray(file.convert("L")) > 0
    window = tuple(record["window"]) if record["window"] else None
    scores = {name: score for name, score in record["scores"].items() if score is not None}
    return Candidate(
        record["candidate"], record["seed"], image, mask, anomaly_part(image, mask), record["normal"], window, scores
    )


def _joined(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Add the counts of two datasets."""
    reasons = one["rejected"].keys() | other["rejected"].keys()
    rejected = {reason: one["rejected"].get(reason, 0) + other["rejected"].get(reason, 0) for reason in sorted(reasons)}
    return {
        "attempts": one["attempts"] + other["attempts"],
        "accepted": one["accepted"] + other["accepted"],
        "rejected": rejected,
    }
