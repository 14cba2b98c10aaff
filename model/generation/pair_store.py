"""Keeps accepted pairs on disk, in a folder beside the dataset, so that the same request can resume.

The folder holds `request.json` (what decides which candidates are made and accepted), three files per pair
(`000000.png`, `000000_mask.png`, `000000.json`) and `state.json`, the counts. The counts are written last and by
renaming, so the pairs that they count are complete; other files belong to pairs whose writing was interrupted.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from model.generation.counts import Counts
from model.types import Candidate, anomaly_part
from service.core.atomic_write import write_text
from service.core.errors import UsageError
from service.core.strict_json import to_json

REQUEST_FILE, STATE_FILE = "request.json", "state.json"

COMPRESSION = 1
"""zlib's fastest level: the files are read once and removed."""

LARGE = {
    "adapter": "the adapter or its base",
    "normals": "the normal images",
    "object_net": "the network that finds objects",
}
"""Entries of a request whose values mean nothing to a reader → what to call them."""


def store_beside(target: Path) -> PairStore:
    """Return the store of the dataset `target`: `dataset.zip.pairs/`."""
    return PairStore(target.with_name(f"{target.name}.pairs"))


class PairStore:
    """Stores the accepted pairs and the counts of one unfinished dataset."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begin(self, request: Mapping[str, Any], counts: Counts, *, force: bool = False) -> None:
        """Resume where the same request stopped, or start over.

        Args:
            request: everything that determines which candidates are made and accepted, as JSON.
            counts: set to the counts at which the request stopped.
            force: whether to delete the pairs of another request.

        Raises:
            UsageError: if the folder holds pairs of another request (names the differences), or other files.
        """
        found = self._read_request()
        left = self._read_counts()
        now = json.loads(to_json(request))
        if found is not None and found != now:
            if left.accepted and not force:
                raise UsageError(
                    _differences(found, now),
                    f"{self.folder} contains {left.accepted} pairs of an unfinished dataset with other options; "
                    "use the same options to resume it, --force to start over, or choose another --out",
                )
            self.remove()
            left = Counts()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write(REQUEST_FILE, now)
        for field in fields(Counts):
            setattr(counts, field.name, getattr(left, field.name))

    def add(self, number: int, candidate: Candidate) -> None:
        """Write an accepted pair, without its `part`, which is no longer needed.

        Args:
            number: its position among the accepted pairs, from 0.
        """
        name = _name(number)
        Image.fromarray(candidate.image).save(self.folder / f"{name}.png", compress_level=COMPRESSION)
        Image.fromarray(candidate.mask).save(self.folder / f"{name}_mask.png")
        (self.folder / f"{name}.json").write_text(to_json(candidate.record()), encoding="utf-8")

    def record(self, counts: Counts) -> None:
        """Write the counts; only then do the pairs added before belong to the dataset."""
        self._write(STATE_FILE, counts.as_dict())

    def pairs(self, count: int) -> Iterator[Candidate]:
        """Yield the first `count` pairs in order; their `part` is the image inside the mask.

        Raises:
            UsageError: if a file is missing or damaged.
        """
        for number in range(count):
            try:
                name = _name(number)
                yield self.read(name, json.loads((self.folder / f"{name}.json").read_text(encoding="utf-8")))
            except (OSError, ValueError) as error:
                raise UsageError(f"{self.folder} is damaged: {error}; remove it to start over") from error

    def remove(self) -> None:
        """Remove the folder and all pairs in it."""
        shutil.rmtree(self.folder)

    def _read_request(self) -> dict[str, Any] | None:
        path = self.folder / REQUEST_FILE
        if path.is_file():
            return dict(json.loads(path.read_text(encoding="utf-8")))
        if self.folder.exists() and any(self.folder.iterdir()):
            raise UsageError(
                f"unfinished pairs go to {self.folder}, but it contains other files: remove it, or choose another --out"
            )
        return None

    def _read_counts(self) -> Counts:
        path = self.folder / STATE_FILE
        if not path.is_file():
            return Counts()
        state = json.loads(path.read_text(encoding="utf-8"))
        return Counts.from_dict(state)

    def read(self, name: str, record: Mapping[str, Any]) -> Candidate:
        """Read one candidate's image and mask; its `part` is the image inside the mask."""
        with Image.open(self.folder / f"{name}.png") as file:
            image = np.asarray(file.convert("RGB"))
        with Image.open(self.folder / f"{name}_mask.png") as file:
            mask = np.asarray(file.convert("1"))
        return Candidate.from_record(dict(record), image, mask, anomaly_part(image, mask))

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        write_text(self.folder / name, to_json(content))


def _name(number: int) -> str:
    return f"{number:06d}"


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    names = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    return [
        f"{LARGE[name]} changed" if name in LARGE else f"{name} was {before.get(name)!r} and is now {now.get(name)!r}"
        for name in names
    ]
