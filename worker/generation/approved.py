"""Puts the approved pairs of a job together to a dataset of their own, with who approved what and when."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import structlog
from PIL import Image

from model.export.dataset import Provenance, write_dataset
from model.runtime.progress import Meter, Progress
from model.runtime.timing import stage
from model.types import Candidate, ImageArray, MaskArray
from service.core import object_keys
from service.core.errors import UsageError
from service.core.record import Record
from service.core.storage import MissingObject
from worker.attempt.context import Context
from worker.attempt.inputs import read_normals
from worker.attempt.lease import Lease
from worker.attempt.progress import Reporter
from worker.attempt.retry import retry
from worker.generation.stored import store_dataset

log = structlog.stdlib.get_logger(__name__)

NOT_APPROVED = "not_approved"
"""Reason, among those of the checks, for which a reviewer leaves a pair out."""

GONE = "the job that the pairs come from was deleted"


@dataclass(frozen=True, slots=True)
class _Approved:
    """What the API has stored of a selection.

    Attributes:
        dataset: key of the zip that the pairs are taken from.
        adapter_normals: whether good parts are those of the adapter, since the zip has none.
        pairs: candidate → reviewer, time, and a new mask as base64 of a PNG, or null.
        described: who chose from what, for `dataset.json`.
    """

    dataset: str
    adapter_normals: bool
    pairs: dict[int, dict[str, Any]]
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
        objects, claims = self._context.objects, self._context.store.claims
        # A job is ended by the one worker that may judge its candidates; here there are none to judge.
        if not retry(lambda: self._context.store.blocks.claim_judge(job, owner), check):
            retry(lambda: claims.leave_to_others(job, owner), check)
            return False
        self._report.stage("prepare")
        approved = self._approved()
        source, path = self._folder / "source.zip", self._folder / "dataset.zip"
        try:
            retry(lambda: objects.download(approved.dataset, source), check)
        except MissingObject as error:
            raise UsageError(GONE) from error
        with ZipFile(source) as file:
            counts = self._write(file, approved, path)
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
        pairs = {int(pair["candidate"]): pair for pair in listed["pairs"]}
        return _Approved(listed["dataset"], listed["adapter_normals"], pairs, listed["selection"])

    def _write(self, source: ZipFile, approved: _Approved, path: Path) -> dict[str, Any]:
        """Write the zip; returns its counts."""
        described = json.loads(source.read("dataset.json"))
        rows = [json.loads(line) for line in source.read("manifest.jsonl").splitlines()]
        chosen = [row for row in rows if row["candidate"] in approved.pairs]
        counts = _counts(described["counts"], len(rows), chosen)
        formats = list(self._record.request["formats"])
        provenance = Provenance(
            object_name=described["object"],
            defect_name=described["defect"],
            request=described["request"],
            adapter_card=described["adapter"],
            base_hash=described["base_hash"],
            base_license=described.get("base_license"),
            counts=counts,
            selection=approved.described,
        )
        pairs = self._pairs(source, chosen, approved)
        normals = self._normals(source, described["normals"], approved) if formats else ()
        with stage("zip"):
            write_dataset(path, pairs, provenance, formats=formats, normals=normals)
        return counts

    def _pairs(self, source: ZipFile, rows: list[dict[str, Any]], approved: _Approved) -> Iterator[Candidate]:
        meter = Meter("finish", len(rows), "pairs")
        for number, row in enumerate(rows):
            self._lease.check()
            self._report.report(meter.report(number))
            review = approved.pairs[row["candidate"]]
            drawn = review.get("mask")
            mask = _mask(base64.b64decode(drawn) if drawn else source.read(row["mask"]))
            yield Candidate(
                row["candidate"],
                row["seed"],
                _image(source.read(row["image"])),
                mask,
                normal=row["normal"],
                window=tuple(row["window"]) if row["window"] else None,
                scores={name: score for name, score in row["scores"].items() if score is not None},
                defect=row.get("defect"),
                review={"by": review["by"], "at": review["at"], "mask_touched_up": drawn is not None},
            )
        self._report.report(Progress("finish", len(rows), len(rows), "pairs"))

    def _normals(
        self, source: ZipFile, listed: list[dict[str, str]], approved: _Approved
    ) -> Iterator[tuple[str, ImageArray]]:
        for normal in listed:
            yield normal["name"], _image(source.read(normal["image"]))
        if approved.adapter_normals and not listed:
            adapter = self._record.request["adapter_id"]
            try:
                found = read_normals(self._context.objects, adapter, self._lease.check)
            except MissingObject as error:
                raise UsageError("the adapter whose good parts belong to the dataset was deleted") from error
            for each in found:
                yield each.name, each.image


def _counts(made: dict[str, Any], accepted: int, approved: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Count what a reviewer left out beside what the checks rejected.

    Args:
        made, accepted: counts of the dataset that was reviewed, and its pairs.
        approved: the manifest's rows that were approved.
    """
    rejected = dict(made["rejected"])
    if left_out := accepted - len(approved) + rejected.get(NOT_APPROVED, 0):
        rejected[NOT_APPROVED] = left_out
    counts = {"attempts": made["attempts"], "accepted": len(approved), "rejected": dict(sorted(rejected.items()))}
    if "defects" in made:
        defects = {name: sum(row["defect"] == name for row in approved) for name in made["defects"]}
        counts |= {"skipped": made["skipped"], "defects": defects}
    return counts


def _image(content: bytes) -> ImageArray:
    with Image.open(io.BytesIO(content), formats=["PNG"]) as file:
        return np.asarray(file.convert("RGB"))


def _mask(content: bytes) -> MaskArray:
    with Image.open(io.BytesIO(content), formats=["PNG"]) as file:
        mask: MaskArray = np.asarray(file.convert("L")) > 127
        return mask
