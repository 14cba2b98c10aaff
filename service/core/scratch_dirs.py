"""Folders for what lies on disk for a while, which the next process clears away if their own one is killed."""

from __future__ import annotations

import fcntl
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MOST_KEPT_FREE = 256 * 2**20
"""Bytes; a disk of which a tenth is less is full when less than that is free."""


@contextmanager
def scratch_dir(parent: Path | None, prefix: str, name: str = "") -> Iterator[Path]:
    """A new folder, removed in the end; those of the same prefix whose processes are gone are removed at once.

    Args:
        parent: must exist; None for the system's folder of temporary files.
        prefix: tells what the folder is for.
        name: never given twice; drawn if it is empty.
    """
    root, whole = parent or Path(tempfile.gettempdir()), f"{prefix}{name or secrets.token_hex(8)}"
    _sweep(root, prefix)
    folder = root / whole
    # The lock is taken under another name, so that nobody sweeps the folder before it holds.
    aside = root / f".{whole}.new"
    try:
        with aside.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            folder.mkdir(mode=0o700)
            aside.rename(root / f"{whole}.lock")
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        aside.unlink(missing_ok=True)
        (root / f"{whole}.lock").unlink(missing_ok=True)


def has_room(folder: Path) -> bool:
    """Whether there is room on the disk that a folder lies on, or is to lie on."""
    usage = _usage(folder)
    return usage.free > min(MOST_KEPT_FREE, usage.total // 10)


def free_bytes(folder: Path | None) -> int:
    """What is free on the disk that a folder lies on; None for the system's folder of temporary files."""
    return _usage(folder or Path(tempfile.gettempdir())).free


def _usage(folder: Path) -> shutil._ntuple_diskusage:
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder)


def _sweep(root: Path, prefix: str) -> None:
    for path in root.glob(f"{prefix}*.lock"):
        try:
            with path.open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path.with_suffix(""), ignore_errors=True)
                path.unlink(missing_ok=True)
        except (BlockingIOError, FileNotFoundError, PermissionError):  # in use, gone, or another user's
            continue
