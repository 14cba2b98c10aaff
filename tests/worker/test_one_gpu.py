"""Workers on one machine have a GPU each."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

TELL = "import os, sys; print(os.environ['CUDA_VISIBLE_DEVICES'], flush=True); sys.stdin.read()"

Start = Callable[[], "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts workers on a machine whose driver lists two GPUs."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho GPU-one\necho GPU-two\n")
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}
    command = [sys.executable, "-m", "worker.one_gpu", str(tmp_path), sys.executable, "-c", TELL]
    pipe = subprocess.PIPE
    with ExitStack() as workers:

        def one() -> subprocess.Popen[str]:
            worker = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True
            )
            workers.enter_context(worker)
            workers.callback(worker.kill)
            return worker

        yield one


def gpu_of(worker: subprocess.Popen[str]) -> str:
    assert worker.stdout is not None
    return worker.stdout.readline().strip()


def test_each_worker_has_a_gpu_until_it_dies(start: Start) -> None:
    first, second = start(), start()
    assert {gpu_of(first), gpu_of(second)} == {"GPU-one", "GPU-two"}

    third = start()
    _, refusal = third.communicate()
    assert (third.returncode, refusal) == (1, "each of the 2 GPUs already has a worker\n")

    first.kill()
    first.wait()
    assert gpu_of(start()) in {"GPU-one", "GPU-two"}
