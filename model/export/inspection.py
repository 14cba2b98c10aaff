"""Checks that a dataset is complete and its files are unchanged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

from model.export.dataset import FORMAT_VERSION, DatasetSummary, summarise
from service.core.errors import UsageError


def read_dataset(path: Path) -> DatasetSummary:
    """Check every file of a dataset against its checksum, and every pair against the manifest; return a summary.

    Raises:
        UsageError: if it is not a dataset, or not intact; names every damaged or missing file.
    """
    heading = f"{path} is not an intact dataset"
    if not path.is_file():
        raise UsageError("the file does not exist", heading)
    try:
        with ZipFile(path) as file:
            description, records = _read_records(file, heading)
            problems = list(_problems(file, [*records, *description["normals"]]))
    except BadZipFile as error:
        raise UsageError(f"it is not a readable zip: {error}", heading) from error
    if problems:
        raise UsageError(problems, heading)
    return summarise(path, description, records)


def _read_records(file: ZipFile, heading: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    missing = [name for name in ("dataset.json", "manifest.jsonl") if name not in file.namelist()]
    if missing:
        raise UsageError([f"{name} is missing" for name in missing], heading)
    try:
        description = json.loads(file.read("dataset.json"))
    except ValueError as error:
        raise UsageError(f"dataset.json is not valid JSON: {error}", heading) from error
    if description.get("format_version") != FORMAT_VERSION:
        raise UsageError(
            f"its format version is {description.get('format_version')}, but this version reads {FORMAT_VERSION}",
            heading,
        )
    manifest = file.read("manifest.jsonl")
    if hashlib.sha256(manifest).hexdigest() != description["manifest_sha256"]:
        raise UsageError("manifest.jsonl does not belong to dataset.json: its SHA-256 differs", heading)
    return description, [json.loads(line) for line in manifest.splitlines()]


def _problems(file: ZipFile, records: list[Mapping[str, Any]]) -> Iterator[str]:
    present = set(file.namelist())
    hashes = {record[key]: record[f"{key}_sha256"] for record in records for key in ("image", "mask") if key in record}
    for name in sorted(hashes.keys() - present):
        yield f"{name} is missing"
    for name in sorted(present):
        try:
            data = file.read(name)
        except BadZipFile:
            yield f"{name} is damaged: its checksum does not match"
            continue
        if name in hashes and hashlib.sha256(data).hexdigest() != hashes[name]:
            yield f"{name} was changed: its SHA-256 differs from the manifest's"
