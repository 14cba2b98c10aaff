"""Finds the pairs of a job: in its dataset once it has succeeded, in the blocks of its candidates before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from service.api.stored_zips import StoredZips
from service.core import object_keys
from service.core.record import Record, State
from service.core.records.store import RecordStore
from service.core.storage import MissingObject, ObjectStore
from service.core.strict_json import from_json

KNOWN_LISTS = 64
"""Lists that are remembered; that of a thousand pairs takes about a megabyte."""


@dataclass(frozen=True, slots=True)
class MadePair:
    """A checked candidate of a job.

    Attributes:
        candidate: its index among all candidates of the job.
        number: its number in the dataset; None if it is not, or not yet, in one.
        reasons: why it was rejected; empty if it was accepted.
        facts: seed, scores, name of the good part and more, as far as known.
        zip_key, image, mask: where its pictures are.
    """

    candidate: int
    number: int | None
    reasons: tuple[str, ...]
    facts: Mapping[str, Any]
    zip_key: str
    image: str
    mask: str

    @property
    def accepted(self) -> bool:
        return not self.reasons


class MadePairs:
    """Lists the pairs of jobs and reads their pictures. Safe to use from several threads."""

    def __init__(self, store: RecordStore, storage: ObjectStore) -> None:
        self._store = store
        self._storage = storage
        self.zips = StoredZips(storage)
        self._of_dataset = lru_cache(maxsize=KNOWN_LISTS)(self._read_dataset)
        self._of_rejected = lru_cache(maxsize=KNOWN_LISTS)(self._read_rejected)
        self._of_block = lru_cache(maxsize=4 * KNOWN_LISTS)(self._read_block)

    def listed(self, record: Record, *, accepted: bool) -> list[MadePair]:
        """List the accepted pairs or the rejected ones that are kept, in the order of their candidates."""
        if record.state is State.SUCCEEDED and record.result is not None:
            if accepted:
                return list(self._of_dataset(record.result["dataset"]).values())
            key = record.result.get("rejected")
            return list(self._of_rejected(key).values()) if key else []
        if record.state.is_terminal:
            return []
        return [pair for pair in self._of_blocks(record.id) if pair.accepted == accepted]

    def find(self, record: Record, candidate: int) -> MadePair | None:
        """Find one pair of a job, accepted or rejected; of one that has ended meanwhile, in its dataset."""
        if record.state is State.SUCCEEDED and record.result is not None:
            found = self._of_dataset(record.result["dataset"]).get(candidate)
            if found is None and (key := record.result.get("rejected")):
                found = self._of_rejected(key).get(candidate)
            return found
        if record.state.is_terminal:
            return None
        found = next((pair for pair in self._of_blocks(record.id) if pair.candidate == candidate), None)
        latest = self.latest(record) if found is None else record
        return self.find(latest, candidate) if latest.state.is_terminal else found

    def latest(self, record: Record) -> Record:
        """Return a job's record as it is now."""
        return self._store.records.get(record.id) or record

    def described(self, record: Record) -> dict[str, Any]:
        """Return the `dataset.json` of a job that has succeeded."""
        result = record.result or {}
        described: dict[str, Any] = from_json(self.zips.open(result["dataset"]).read("dataset.json").decode())
        return described

    def read(self, pair: MadePair, name: str) -> bytes:
        """Read the PNG of its image or mask."""
        return self.zips.open(pair.zip_key).read(name)

    def _read_dataset(self, key: str) -> dict[int, MadePair]:
        lines = self.zips.open(key).read("manifest.jsonl").decode().splitlines()
        rows = [from_json(line) for line in lines]
        return {
            row["candidate"]: MadePair(row["candidate"], number, (), row, key, row["image"], row["mask"])
            for number, row in enumerate(rows)
        }

    def _read_rejected(self, key: str) -> dict[int, MadePair]:
        rows = from_json(self.zips.open(key).read("rejected.json").decode())
        return {row["index"]: _undelivered(row, tuple(row["reasons"]), key) for row in rows}

    def _of_blocks(self, job: str) -> Iterator[MadePair]:
        done, verdicts = self._store.blocks.finished(job), self._store.blocks.verdicts(job)
        for number, verdict in verdicts.items():
            try:
                yield from self._of_block(done[number], verdict)
            except MissingObject:  # the dataset is complete, and the blocks are being deleted
                return

    def _read_block(self, key: str, verdict: str) -> list[MadePair]:
        candidates = {row["index"]: row for row in from_json(self.zips.open(key).read("candidates.json").decode())}
        judged = from_json(self._storage.get(verdict).decode())
        found = [_undelivered(candidates[index], (), key, scores) for index, scores in judged["accepted"]]
        found += [
            _undelivered(candidates[index], tuple(reasons), key, scores)
            for index, reasons, scores in judged.get("rejected", ())
        ]
        return sorted(found, key=lambda pair: pair.candidate)


def _undelivered(
    row: Mapping[str, Any], reasons: tuple[str, ...], key: str, scores: Mapping[str, Any] | None = None
) -> MadePair:
    name = f"{row['index']:08d}"
    facts = {**row, "scores": {**row["scores"], **(scores or {})}}
    return MadePair(row["index"], None, reasons, facts, key, f"{name}.png", f"{name}_mask.png")


def uploaded(storage: ObjectStore, adapter: str) -> dict[str, list[dict[str, Any]]]:
    """Return kind → name and key of each picture that an adapter was made from.

    Raises:
        MissingObject: the adapter was deleted.
    """
    listed: dict[str, list[dict[str, Any]]] = from_json(storage.get(object_keys.inputs(adapter)).decode())
    return listed
