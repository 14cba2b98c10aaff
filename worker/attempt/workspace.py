"""Provides folders for a worker's files: one for each attempt, and one for each adapter while it is loaded."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.core.scratch_dirs import has_space, scratch_dir
from service.core.settings import Settings

FOLDER = "pairforge-work"


@contextmanager
def workspace(settings: Settings, name: str = "") -> Iterator[Path]:
    """Create a folder and remove it in the end; folders of processes that are gone are removed at once.

    Args:
        name: unique name; random if it is empty.
    """
    root = _root(settings)
    root.mkdir(parents=True, exist_ok=True)
    with scratch_dir(root, "", name) as folder:
        yield folder


def is_crowded(settings: Settings) -> bool:
    """Return whether the disk has too little free space to work."""
    return not has_space(_root(settings))


def _root(settings: Settings) -> Path:
    return (settings.spool_dir or Path(tempfile.gettempdir())) / FOLDER
