"""Folders for a while: gone in the end, also when their process was killed, and safe while it lives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from service.core.scratch_dirs import scratch_dir

HOLDING = """
import sys, time
from pathlib import Path
from service.core.scratch_dirs import scratch_dir
with scratch_dir(Path(sys.argv[1]), "upload-") as folder:
    (folder / "file").write_bytes(b"content")
    print(folder.name, flush=True)
    time.sleep(600)
"""


def holder(root: Path) -> tuple[subprocess.Popen[str], str]:
    """A process with a folder of its own, and the folder's name."""
    process = subprocess.Popen([sys.executable, "-c", HOLDING, str(root)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def test_a_folder_and_its_lock_are_gone_in_the_end(tmp_path: Path) -> None:
    with scratch_dir(tmp_path, "upload-") as first, scratch_dir(tmp_path, "upload-") as second:
        (first / "deep").mkdir()
        assert first.is_dir()
        assert second.is_dir()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_cleared_away_by_the_next_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "other.lock").touch()
    dead, left = holder(tmp_path)
    alive, used = holder(tmp_path)
    try:
        os.kill(dead.pid, signal.SIGKILL)
        dead.communicate()
        assert (tmp_path / left).is_dir()
        with scratch_dir(tmp_path, "upload-") as own:
            assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {used, own.name}
    finally:
        alive.kill()
        alive.communicate()
    assert (tmp_path / "other.lock").exists()
