"""Creates scratch folders, which another process deletes later if their own process is killed."""

from __future__ import annotations

import fcntl
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MOST_KEPT_FREE = 256 * 2**20
"""Bytes; a disk is full when less than this, or less than a tenth of a smaller disk, is free."""


@contextmanager
def scratch_dir(parent: Path | None, prefix: str, name: str = "") -> Iterator[Path]:
    """Create a folder that is deleted at the end; `sweep` those of the same prefix first.

    Args:
        parent: existing folder; None for the system's folder of temporary files.
        prefix: names the folder's purpose.
        name: unique name; random if it is empty.
    """
    root, whole = parent or Path(tempfile.gettempdir()), f"{prefix}{name or secrets.token_hex(8)}"
    sweep(parent, prefix)
    folder = root / whole
    # Locked under another name first, so that no other process deletes the folder before the lock is held.
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


def has_space(folder: Path) -> bool:
    """Whether there is space on the disk of a folder, which need not exist yet."""
    usage = _usage(folder)
    return usage.free > min(MOST_KEPT_FREE, usage.total // 10)


def free_bytes(folder: Path | None) -> int:
    """Return the free bytes on the disk of a folder; None for the system's folder of temporary files."""
    return _usage(folder or Path(tempfile.gettempdir())).free


def _usage(folder: Path) -> shutil._ntuple_diskusage:
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder)


def sweep(parent: Path | None, prefix: str) -> None:
    """Delete the scratch folders of a prefix whose process has ended.

    Args:
        parent, prefix: as in `scratch_dir`.
    """
    root = parent or Path(tempfile.gettempdir())
    for path in root.glob(f"{prefix}*.lock"):
        try:
            with path.open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path.with_suffix(""), ignore_errors=True)
                path.unlink(missing_ok=True)
        except (BlockingIOError, FileNotFoundError, PermissionError):  # in use, gone, or another user's
            continue
