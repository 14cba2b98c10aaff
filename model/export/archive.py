"""Writes zips whose bytes depend on their contents alone, and which exist completely or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from service.core.atomic_write import atomic_file

EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip can store."""
UNIX = 3
REGULAR_FILE = 0o100644 << 16


class Archive:
    """Appends whole files, uncompressed: PNG does not shrink further, and the bytes stay the same under any zlib."""

    def __init__(self, file: ZipFile) -> None:
        self._file = file

    def add(self, name: str, data: bytes) -> str:
        """Append one file and return the SHA-256 of its content, in hexadecimal."""
        entry = ZipInfo(name, EPOCH)
        entry.create_system = UNIX
        entry.external_attr = REGULAR_FILE
        self._file.writestr(entry, data, ZIP_STORED)
        return hashlib.sha256(data).hexdigest()


@contextmanager
def new_archive(path: Path) -> Iterator[Archive]:
    """Write a zip to a temporary file and rename it to `path` when complete; a failure leaves no file."""
    with atomic_file(path) as aside, ZipFile(aside, "w", ZIP_STORED) as file:
        yield Archive(file)
