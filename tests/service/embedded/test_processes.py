"""Children of a stack, without the stack."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from service.embedded import processes
from service.embedded.processes import Child, Command

WRITING = """
import itertools, time
for number in itertools.count():
    print(number, "x" * 100, flush=True)
    time.sleep(0.0001)
"""


def test_the_log_of_a_process_that_writes_and_writes_stays_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "LARGEST_LOG", 50_000)
    child = Child(Command("writer", [sys.executable, "-c", WRITING]), tmp_path, tmp_path)
    older = tmp_path / "writer.log.1"
    beginnings: list[int] = []
    deadline = time.monotonic() + 30
    try:
        while len(beginnings) < 3:
            assert time.monotonic() < deadline
            child.rotate_log()
            if older.exists():
                put_aside = older.read_bytes()
                assert b"\0" not in put_aside  # a gap, had it been written on at the old place
                # The first line may be the rest of one that was being written while the log was emptied.
                beginnings.append(int(put_aside.splitlines()[1].split()[0]))
                older.unlink()
    finally:
        child.kill()
    # The same process has written on.
    assert sorted(set(beginnings)) == beginnings
    assert child.log.stat().st_size < 1_000_000
