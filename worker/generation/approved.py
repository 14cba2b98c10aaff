"""Makes a dataset of the approved pairs of one or more jobs; it says who approved what and when, and whose it was."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import structlog

from model.export.dataset import Provenance, write_dataset
from model.runtime.progress import Meter, Progress
from model.runtime.timing import stage
from model.types import Candidate, ImageArray
from service.core import object_keys
from service.core.errors import UsageError
from service.core.record import Record
from service.core.storage import MissingObject
from worker.attempt.context import Context
from worker.attempt.inputs import read_normals
from worker.attempt.lease import Lease
from worker.attempt.progress import Reporter
from worker.attempt.retry import retry
from worker.generation.delivered import decode_image, decode_mask, delivered_pair, manifest
from worker.generation.stored import store_dataset

log = structlog.stdlib.get_logger(__name__)

NOT_APPROVED = "not_approved"
"""Reason, among those of the checks, for which a reviewer leaves a pair out."""

GONE = "the job that the pairs come from was deleted"


@dataclass(frozen=True, slots=True)
class _Source:
    """A job that pairs are taken from.

    Attributes:
        job: its id.
        dataset: key of its zip.
        pairs: candidate → reviewer, time, and a new mask as base64 of a PNG, or null.
    """

    job: str
    dataset: str
    pairs: dict[int, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class _Approved:
    """What the API has stored of a selection.

    Attributes:
        sources: the jobs in the order of the new dataset; some may have no pair in it.
        adapter_normals: whether good parts are those of the adapter, since the zips may have none.
        described: who chose from what, for `dataset.json`.
    """

    sources: list[_Source]
    adapter_normals: bool
    described: dict[str, Any]


class ApprovedPairs:
    """Writes the dataset of one selection; the work of a job that generates nothing."""

    def __init__(self, context: Context, record: Record, lease: Lease, folder: Path) -> None:
        self._context = context
        self._record = record
        self._lease = lease
        self._folder = folder
        self._report = Reporter(context, record.id, lease.owner)

    def run(self) -> bool:
        """Do all of it, unless another worker does; returns whether the record succeeded by it.

        Raises:
            UsageError: the job or the adapter that it is made from was deleted.
        """
        job, owner, check = self._record.id, self._lease.owner, self._lease.check
        claims = self._context.store.claims
        # A job is ended by the one worker that may judge its candidates; here there are none to judge.
        if not retry(lambda: self._context.store.blocks.claim_judge(job, owner), check):
            retry(lambda: claims.leave_to_others(job, owner), check)
            return False
        self._report.stage("prepare")
        approved = self._approved()
        path = self._folder / "dataset.zip"
        with ExitStack() as files:
            sources = [
                (source, files.enter_context(ZipFile(self._downloaded(number, source.dataset))))
                for number, source in enumerate(approved.sources)
            ]
            counts = self._write(sources, approved, path)
        stored, size = store_dataset(self._context, self._record, self._lease, path)
        result = {"request": {}, "counts": counts, **stored}
        stored_bytes = self._record.stored_bytes + size  # the list of pairs is stored already
        succeeded = retry(lambda: claims.succeed(job, owner, result, stored_bytes), check)
        if succeeded:
            log.info("selection_succeeded", bytes=stored["bytes"])
        return succeeded

    def _approved(self) -> _Approved:
        key = object_keys.approved(self._record.id)
        listed = json.loads(retry(lambda: self._context.objects.get(key), self._lease.check))
        sources = [
            _Source(source["job_id"], source["dataset"], {int(pair["candidate"]): pair for pair in source["pairs"]})
            for source in listed["sources"]
        ]
        return _Approved(sources, listed["adapter_normals"], listed["selection"])

    def _downloaded(self, number: int, key: str) -> Path:
        path = self._folder / f"source-{number}.zip"
        try:
            retry(lambda: self._context.objects.download(key, path), self._lease.check)
        except MissingObject as error:
            raise UsageError(GONE) from error
        return path

    def _write(self, sources: list[tuple[_Source, ZipFile]], approved: _Approved, path: Path) -> dict[str, Any]:
        """Write the zip; returns its counts."""
        chosen = [(source, file, _chosen(source, file)) for source, file in sources]
        described = [json.loads(file.read("dataset.json")) for _, file in sources]
        approved_rows = [row for _, _, rows in chosen for row in rows]
        counts = _counts([each["counts"] for each in described], approved_rows)
        formats = list(self._record.request["formats"])
        first = described[0]
        provenance = Provenance(
            object_name=first["object"],
            defect_name=first["defect"],
            request=first["request"],
            adapter_card=first["adapter"],
            base_hash=first["base_hash"],
            base_license=first.get("base_license"),
            counts=counts,
            selection=approved.described,
        )
        normals = self._normals(sources, approved) if formats else ()
        with stage("zip"):
            write_dataset(path, self._pairs(chosen, len(approved_rows)), provenance, formats=formats, normals=normals)
        return counts

    def _pairs(self, chosen: list[tuple[_Source, ZipFile, list[dict[str, Any]]]], total: int) -> Iterator[Candidate]:
        """Yield the pairs, which are numbered anew: candidates of several jobs may have one index."""
        meter, number = Meter("finish", total, "pairs"), 0
        for source, file, rows in chosen:
            for row in rows:
                self._lease.check()
                self._report.report(meter.report(number))
                yield _reviewed(number, source, file, row)
                number += 1
        self._report.report(Progress("finish", total, total, "pairs"))

    def _normals(self, sources: list[tuple[_Source, ZipFile]], approved: _Approved) -> Iterator[tuple[str, ImageArray]]:
        """Yield the good parts of the first dataset that has them, or of the adapter, which all jobs share."""
        for _, file in sources:
            if listed := json.loads(file.read("dataset.json"))["normals"]:
                for normal in listed:
                    yield normal["name"], decode_image(file.read(normal["image"]))
                return
        if approved.adapter_normals:
            adapter = self._record.request["adapter_id"]
            try:
                found = read_normals(self._context.objects, adapter, self._lease.check)
            except MissingObject as error:
                raise UsageError("the adapter whose good parts belong to the dataset was deleted") from error
            for each in found:
                yield each.name, each.image


def _chosen(source: _Source, file: ZipFile) -> list[dict[str, Any]]:
    return [row for row in manifest(file) if row["candidate"] in source.pairs]


def _reviewed(number: int, source: _Source, file: ZipFile, row: dict[str, Any]) -> Candidate:
    """Return a pair, with its new mask if it has one, who approved it, and where it was generated."""
    approval = source.pairs[row["candidate"]]
    drawn = approval.get("mask")
    pair = delivered_pair(file, row, mask=decode_mask(base64.b64decode(drawn)) if drawn else None)
    before = pair.review or {}  # of a selection that is selected from
    review = {
        "by": approval["by"],
        "at": approval["at"],
        "mask_touched_up": drawn is not None or before.get("mask_touched_up", False),
        "job_id": before.get("job_id", source.job),
        "candidate": before.get("candidate", row["candidate"]),
    }
    return replace(pair, index=number, review=review)


def _counts(made: Sequence[Mapping[str, Any]], approved: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Count what a reviewer left out beside what the checks rejected.

    Args:
        made: counts of the datasets that were reviewed.
        approved: the manifests' rows that were approved.
    """
    rejected = Counter[str]()
    for each in made:
        rejected.update(each["rejected"])
    if left_out := sum(each["accepted"] for each in made) - len(approved):
        rejected[NOT_APPROVED] += left_out
    attempts = sum(each["attempts"] for each in made)
    counts = {"attempts": attempts, "accepted": len(approved), "rejected": dict(sorted(rejected.items()))}
    if types := dict.fromkeys(name for each in made for name in each.get("defects", ())):
        defects = {name: sum(row["defect"] == name for row in approved) for name in types}
        counts |= {"skipped": sum(each.get("skipped", 0) for each in made), "defects": defects}
    return counts
