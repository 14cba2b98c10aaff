"""Pairs of the jobs that a job follows: it goes on with their candidates, and must not repeat their pairs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from model.types import Candidate
from service.core.errors import UsageError
from service.core.record import Record, State
from service.core.storage import MissingObject
from worker.attempt.context import Context
from worker.attempt.lease import Lease
from worker.attempt.retry import retry
from worker.generation.delivered import delivered_pair, manifest

GONE = "a job that this one follows was deleted, and its pairs must be known to find copies of them"


class EarlierPairs:
    """The delivered pairs of all jobs that a job follows, read anew by each iteration; of most jobs there are none.

    Args:
        folder: where one dataset at a time is kept.
    """

    def __init__(self, context: Context, record: Record, lease: Lease, folder: Path) -> None:
        self._objects = context.objects
        self._records = context.store.records
        self._record = record
        self._check = lease.check
        self._path = folder / "earlier.zip"

    def __iter__(self) -> Iterator[Candidate]:
        """Yield the pairs, those of the first job first.

        Raises:
            UsageError: one of the jobs was deleted.
        """
        for result in self._results():
            try:
                retry(partial(self._objects.download, result["dataset"], self._path), self._check)
            except MissingObject as error:
                raise UsageError(GONE) from error
            with ZipFile(self._path) as dataset:
                for row in manifest(dataset):
                    self._check()
                    yield delivered_pair(dataset, row)
            self._path.unlink()

    def described(self) -> dict[str, Any] | None:
        """Return what determines the job's pairs besides its request, for `dataset.json`; None if it follows none."""
        if (follows := self._record.request.get("follows")) is None:
            return None
        hashes = [result["sha256"] for result in self._results()]
        return {"first_candidate": follows["first_candidate"], "dataset_sha256": hashes}

    def _results(self) -> list[dict[str, Any]]:
        """Return the jobs' results, the first job's first."""
        found, follows = list[dict[str, Any]](), self._record.request.get("follows")
        while follows is not None:
            earlier = retry(partial(self._records.get, follows["job_id"]), self._check)
            if earlier is None or earlier.state is not State.SUCCEEDED or earlier.result is None:
                raise UsageError(GONE)
            found.insert(0, earlier.result)
            follows = earlier.request.get("follows")
        return found
