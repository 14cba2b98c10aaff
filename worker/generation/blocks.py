"""Stores blocks of candidates as files: any worker makes them, one filters them and reads them for the dataset.

A block is a zip of `00000012.png`, `00000012_mask.png` and, for methods that generate parts, `00000012_part.png` per
candidate, and `candidates.json` with the rest. A filtered block has a verdict beside it: which candidates were
accepted, and their scores.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile

import numpy as np
from PIL import Image

from model.types import Candidate
from service.core import object_keys
from service.core.atomic_write import atomic_file
from service.core.strict_json import to_json, without_nan
from worker.attempt.context import Context
from worker.attempt.retry import retry

COMPRESSION = 1
"""zlib's fastest level: blocks are read a few times and deleted."""

LIST_FILE = "candidates.json"


@dataclass(frozen=True, slots=True)
class BlockVerdict:
    """The candidates of one block that were checked, in order.

    Attributes:
        accepted: index → scores.
        rejected: index → reasons and scores; empty in verdicts of earlier versions.
    """

    accepted: dict[int, dict[str, float]]
    rejected: dict[int, tuple[list[str], dict[str, float]]] = field(default_factory=dict)


class Blocks:
    """Reads and writes the blocks of one job, locally and in the object store.

    Args:
        owner: name of this attempt, part of the keys of what it stores.
        folder: local copies of blocks made or fetched here.
        check: called before every transfer; an error that it raises ends the work.
    """

    def __init__(self, context: Context, job: str, owner: str, folder: Path, check: Callable[[], None]) -> None:
        self._objects = context.objects
        self._job = job
        self._owner = owner
        self._folder = folder
        self._check = check
        folder.mkdir()

    def store(self, number: int, candidates: Iterable[Candidate]) -> str:
        """Pack and upload a block; returns its key."""
        key = object_keys.block(self._job, number, self._owner)
        path = self._path(key)
        pack(path, candidates)
        retry(lambda: self._objects.put(key, path, content_type="application/zip"), self._check)
        return key

    def candidates(self, key: str, only: Sequence[int] | None = None) -> list[Candidate]:
        """Return the candidates of a block in order, or those of some indices."""
        path = self._path(key)
        if not path.is_file():
            with atomic_file(path) as aside:
                retry(lambda: self._objects.download(key, aside), self._check)
        return unpack(path, only)

    def store_verdict(self, number: int, verdict: BlockVerdict) -> str:
        """Upload a verdict; returns its key."""
        key = object_keys.verdict(self._job, number, self._owner)
        rejected = [(index, reasons, scores) for index, (reasons, scores) in verdict.rejected.items()]
        content = to_json(without_nan({"accepted": list(verdict.accepted.items()), "rejected": rejected})).encode()
        retry(lambda: self._objects.put(key, content, content_type="application/json"), self._check)
        return key

    def verdict(self, key: str) -> BlockVerdict:
        content = retry(lambda: self._objects.get(key), self._check)
        listed = json.loads(content)
        return BlockVerdict(
            {int(index): scores for index, scores in listed["accepted"]},
            {int(index): (reasons, scores) for index, reasons, scores in listed.get("rejected", ())},
        )

    def _path(self, key: str) -> Path:
        return self._folder / key.rpartition("/")[2]


def pack(path: Path, candidates: Iterable[Candidate]) -> None:
    """Write a block completely or not at all."""
    listed: list[dict[str, Any]] = []
    with atomic_file(path) as aside, ZipFile(aside, "w", ZIP_STORED) as file:
        for candidate in candidates:
            name = _name(candidate.index)
            file.writestr(f"{name}.png", _png(candidate.image))
            file.writestr(f"{name}_mask.png", _png(candidate.mask))
            if candidate.part is not None:
                file.writestr(f"{name}_part.png", _png(candidate.part))
            listed.append(candidate.record())
        file.writestr(LIST_FILE, to_json(listed))


def unpack(path: Path, only: Sequence[int] | None = None) -> list[Candidate]:
    """Read the candidates of a block, or those of some indices."""
    with ZipFile(path) as file:
        listed = json.loads(file.read(LIST_FILE))
        return [_read(file, entry) for entry in listed if only is None or entry["index"] in only]


def _read(file: ZipFile, entry: dict[str, Any]) -> Candidate:
    name = _name(entry["index"])
    image, mask = _pixels(file.read(f"{name}.png"), "RGB"), _pixels(file.read(f"{name}_mask.png"), "1")
    part = f"{name}_part.png"
    return Candidate.from_record(
        entry, image, mask, _pixels(file.read(part), "RGB") if part in file.namelist() else None
    )


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=COMPRESSION)
    return file.getvalue()


def _pixels(content: bytes, mode: str) -> np.ndarray:
    with Image.open(io.BytesIO(content), formats=["PNG"]) as file:
        return np.asarray(file.convert(mode))


def _name(index: int) -> str:
    return f"{index:08d}"
