"""Reads pairs that exist already, from datasets of `pairforge generate` or the service."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
from PIL import Image

from model.evaluation.sources import MadePairs
from model.export.inspection import read_dataset
from model.types import Candidate, anomaly_part


def read_given_pairs(files: Sequence[Path]) -> dict[str, MadePairs]:
    """Read the pairs of datasets by their defect's name; several datasets of one defect are joined.

    Raises:
        UsageError: a file is no dataset, or not intact.
    """
    found: dict[str, MadePairs] = {}
    for path in files:
        description = read_dataset(path).description
        defect, counts = str(description["defect"]), dict(description["counts"])
        with ZipFile(path) as archive:
            records = [json.loads(line) for line in archive.read("manifest.jsonl").splitlines()]
            pairs = [_read(archive, record) for record in records]
        if defect in found:
            counts = _joined(found[defect].counts, counts)
            pairs = [*found[defect].pairs, *pairs]
        found[defect] = MadePairs(pairs, counts, {})
    return found


def _read(archive: ZipFile, record: dict[str, Any]) -> Candidate:
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
