"""A worker tells at its start whether it will be able to compile, because it has tried."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import structlog

from service.core.settings import Settings
from worker.compiling import compiler, log_compiling, obstacles, unusable

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders for what a machine's compiler makes."""
    monkeypatch.delenv("CC", raising=False)
    if compiler() is None:
        pytest.skip("there is no C compiler here")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "compiled" / "triton"))
    return tmp_path / "compiled"


def test_nothing_is_in_the_way_where_there_is_a_compiler_and_room(kept: Path) -> None:
    assert obstacles() == []
    assert list(kept.rglob("*")) == [kept / "triton"]


def test_a_missing_compiler_is_told(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(kept))
    assert [problem for problem in obstacles() if "no C compiler" in problem]


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("echo 'probe.c:1:10: fatal error: Python.h: No such file or directory' >&2; exit 1", "fatal error: Python.h"),
        ("exit 3", "fails: it ends with 3"),
        ("exit 0", "cannot be loaded: "),
    ],
)
def test_a_compiler_that_does_not_work_is_told(
    kept: Path, monkeypatch: pytest.MonkeyPatch, script: str, told: str
) -> None:
    program = kept.parent / "cc"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("CC", str(program))
    (problem,) = obstacles()
    assert str(program) in problem
    assert told in problem


def test_a_compiler_that_there_is_not_is_told(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", str(kept / "no compiler"))
    (problem,) = obstacles()
    assert "the C compiler cannot be run: " in problem


def test_a_folder_that_nothing_may_be_run_from_is_told(tmp_path: Path) -> None:
    asked = "import pathlib, sys, worker.compiling as c; print(c.unusable(pathlib.Path(sys.argv[1])))"
    mounted = 'mount -t tmpfs -o noexec none "$1" && shift && exec "$@"'
    program = [sys.executable, "-c", asked, str(tmp_path / "compiled")]
    command = ["unshare", "--mount", "sh", "-c", mounted, "sh", str(tmp_path), *program]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if run.returncode:
        pytest.skip(f"nothing can be mounted here: {run.stderr.strip()}")
    assert run.stdout == f"{tmp_path / 'compiled'} is mounted noexec, so compiled code cannot run from it\n"


def test_a_folder_that_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    told = unusable(tmp_path / "file" / "compiled")
    assert told is not None
    assert told.endswith("cannot be written: Not a directory")


def test_one_line_at_the_start_tells_it(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with structlog.testing.capture_logs() as lines:
        log_compiling(Settings(device="cuda"))
        monkeypatch.setenv("TRITON_CACHE_DIR", str(kept / "triton" / "file"))
        (kept / "triton" / "file").touch()
        log_compiling(Settings(device="cuda:1"))
        log_compiling(Settings(device="cpu"))
    assert [(line["event"], line["log_level"]) for line in lines] == [
        ("passes_compiled", "info"),
        ("passes_not_compiled", "warning"),
    ]
    assert lines[1]["why"].endswith("cannot be written: File exists")
