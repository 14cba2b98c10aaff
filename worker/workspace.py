"""A folder for one attempt, which the next process on this machine clears away if this one is killed."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.core.settings import Settings

FOLDER = "pairforge-work"


@contextmanager
def workspace(settings: Settings, owner: str) -> Iterator[Path]:
    """A new folder, removed in the end; those of processes that are gone are removed at once."""
    root = (settings.spool_dir or Path(tempfile.gettempdir())) / FOLDER
    root.mkdir(parents=True, exist_ok=True)
    _sweep(root)
    folder = root / owner
    # The lock is taken under another name, so that nobody sweeps the folder before it holds.
    aside = root / f".{owner}.lock"
    with aside.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder.mkdir()
        aside.rename(root / f"{owner}.lock")
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            (root / f"{owner}.lock").unlink(missing_ok=True)


def _sweep(root: Path) -> None:
    for path in root.glob("*.lock"):
        try:
            with path.open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path.with_suffix(""), ignore_errors=True)
                path.unlink(missing_ok=True)
        except (BlockingIOError, FileNotFoundError):
            continue
