"""Stores a finished dataset with its preview, and describes both for the record."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from model.runtime.timing import stage
from service.core import object_keys
from service.core.record import Record
from worker.attempt.context import Context
from worker.attempt.lease import Lease
from worker.attempt.retry import retry
from worker.attempt.upload import upload


def store_dataset(context: Context, record: Record, lease: Lease, path: Path) -> tuple[dict[str, Any], int]:
    """Store a job's zip and the preview inside it.

    Returns:
        The part of the record's result that says where they are, and what the zip is called; and their size in bytes.
    """
    job, owner, check, objects = record.id, lease.owner, lease.check, context.objects
    with path.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    with ZipFile(path) as file:
        preview = file.read("preview.png")
    adapter = retry(lambda: context.store.records.get(record.request["adapter_id"]), check)
    name = object_keys.dataset_name(adapter.request["name"] if adapter is not None else "", job)
    stored = {"dataset": object_keys.dataset(job, owner), "preview": object_keys.preview(job, owner)}
    with stage("store"):
        upload(objects, stored["dataset"], path, "application/zip", check)
        retry(lambda: objects.put(stored["preview"], preview, content_type="image/png"), check)
    size = path.stat().st_size
    return {"name": name, "bytes": size, "sha256": digest, **stored}, size + len(preview)
