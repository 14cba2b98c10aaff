"""Accepted pairs on disk until their dataset is complete: a folder beside it, from which the same request goes on.

The folder holds `request.json` (what decides which candidates are made and accepted), three files per pair
(`000000.png`, `000000_mask.png`, `000000.json`) and `state.json`, the tally. The tally is written last and by renaming,
so what it counts is complete; files beyond it are of pairs that were being written when the process ended.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from model.generation.filter import Counts
from model.types import Candidate, anomaly_part
from service.core.atomic_write import write_text
from service.core.errors import UsageError

REQUEST_FILE, STATE_FILE = "request.json", "state.json"

COMPRESSION = 1
"""zlib's fastest: the files are read once and removed."""

LARGE = {
    "adapter": "the adapter or its base",
    "normals": "the normal images",
    "object_net": "the network that finds objects",
}
"""Entries of a request whose values would say nothing to a reader."""


def store_beside(target: Path) -> PairStore:
    """The store of the dataset `target`: `dataset.zip.pairs/`."""
    return PairStore(target.with_name(f"{target.name}.pairs"))


class PairStore:
    """The accepted pairs of one unfinished dataset, and how far it got."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begin(self, request: Mapping[str, Any], counts: Counts, *, force: bool = False) -> None:
        """Go on where the same request stopped, or start over.

        Args:
            request: all that decides which candidates are made and accepted, as JSON.
            counts: set to where the request stopped.
            force: throw away the pairs of another request.

        Raises:
            UsageError: the folder holds pairs of another request, naming what differs; or files of another kind.
        """
        found = self._read_request()
        left = self._read_tally()
        now = json.loads(json.dumps(request))
        if found is not None and found != now:
            if left.accepted and not force:
                raise UsageError(
                    _differences(found, now),
                    f"{self.folder} holds the {left.accepted} pairs of an unfinished dataset that was asked for "
                    "differently; give the same options to go on, --force to start over, or another --out",
                )
            self.remove()
            left = Counts()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write(REQUEST_FILE, now)
        counts.attempts, counts.accepted, counts.rejected = left.attempts, left.accepted, left.rejected

    def add(self, number: int, candidate: Candidate) -> None:
        """Keep an accepted pair until the tally counts it; its `part` has served its purpose and is not kept.

        Args:
            number: among the accepted pairs, from 0.
        """
        name = _name(number)
        Image.fromarray(candidate.image).save(self.folder / f"{name}.png", compress_level=COMPRESSION)
        Image.fromarray(candidate.mask).save(self.folder / f"{name}_mask.png")
        (self.folder / f"{name}.json").write_text(json.dumps(candidate.record()), encoding="utf-8")

    def record(self, counts: Counts) -> None:
        """Note how far the request got."""
        self._write(STATE_FILE, counts.as_dict())

    def pairs(self, count: int) -> Iterator[Candidate]:
        """The first `count` pairs in order, one at a time in memory; their `part` is the image inside the mask.

        Raises:
            UsageError: a file is missing or damaged.
        """
        for number in range(count):
            try:
                yield self._read(_name(number))
            except (OSError, ValueError) as error:
                raise UsageError(f"{self.folder} is damaged, remove it to start over: {error}") from error

    def remove(self) -> None:
        """Remove the folder and all pairs in it."""
        shutil.rmtree(self.folder)

    def _read_request(self) -> dict[str, Any] | None:
        path = self.folder / REQUEST_FILE
        if path.is_file():
            return dict(json.loads(path.read_text(encoding="utf-8")))
        if self.folder.exists() and any(self.folder.iterdir()):
            raise UsageError(
                f"{self.folder} is where unfinished pairs go, but holds other files: remove it, or give another --out"
            )
        return None

    def _read_tally(self) -> Counts:
        path = self.folder / STATE_FILE
        if not path.is_file():
            return Counts()
        state = json.loads(path.read_text(encoding="utf-8"))
        return Counts(state["attempts"], state["accepted"], Counter(state["rejected"]))

    def _read(self, name: str) -> Candidate:
        with Image.open(self.folder / f"{name}.png") as file:
            image = np.asarray(file.convert("RGB"))
        with Image.open(self.folder / f"{name}_mask.png") as file:
            mask = np.asarray(file.convert("1"))
        record = json.loads((self.folder / f"{name}.json").read_text(encoding="utf-8"))
        return Candidate.from_record(record, image, mask, anomaly_part(image, mask))

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        write_text(self.folder / name, json.dumps(content))


def _name(number: int) -> str:
    return f"{number:06d}"


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    names = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    return [
        f"{LARGE[name]} changed" if name in LARGE else f"{name} was {before.get(name)!r} and is {now.get(name)!r} now"
        for name in names
    ]
