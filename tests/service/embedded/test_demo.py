from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from PIL import Image

from service.embedded.processes import marked
from tests.service.embedded.running import LENIENT, nothing_is_left_of

pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def limits(tmp_path: Path) -> Path:
    file = tmp_path / "limits.json"
    file.write_text(json.dumps(LENIENT))
    return file


@contextmanager
def demo(target: Path, base: Path, limits: Path, steps: int) -> Iterator[subprocess.Popen[str]]:
    """A demo as a process; nothing of it is left afterwards."""
    sizes = ["--steps", str(steps), "-n", "2"]
    arguments = ["demo", "--out", target, "--base", base, "--limits", limits, *sizes, "--json"]
    command = [sys.executable, "-c", "from model.cli import main; main()", *map(str, arguments)]
    environment = {**os.environ, "PAIRFORGE_LEASE_SECONDS": "6"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield process
        finally:
            process.kill()
    nothing_is_left_of(target / ".stack")


def ended(process: subprocess.Popen[str], target: Path) -> list[dict[str, Any]]:
    """The events that it still tells; its stack ends before it does."""
    told, _ = process.communicate()
    assert marked(target / ".stack") == []
    return [json.loads(line) for line in told.splitlines()]


def test_the_demo_ends_with_dataset_and_preview(tiny_base: Path, tmp_path: Path, limits: Path) -> None:
    target = tmp_path / "demo"
    with demo(target, tiny_base, limits, steps=4) as process:
        events = ended(process, target)
    assert process.returncode == 0, events[-1]
    bar = [event for event in events if event["event"] == "progress" and event["stage"] == "demo"]
    reached = [event["completed"] for event in bar]
    assert reached == sorted(reached)
    assert (reached[0], reached[-1]) == (0, 100)
    result = events[-1]
    assert (result["event"], result["num_pairs"], result["counts"]["accepted"]) == ("result", 2, 2)
    assert sorted(path.name for path in target.iterdir()) == [".stack", "adapter", "dataset.zip", "preview.png"]
    with Image.open(target / "preview.png") as preview:
        assert preview.width > 300
    with ZipFile(target / "dataset.zip") as file:
        assert "images/000001.png" in file.namelist()


@pytest.mark.faults
def test_an_interrupted_demo_goes_on_and_its_adapter_is_used_again(
    tiny_base: Path, tmp_path: Path, limits: Path
) -> None:
    target = tmp_path / "demo"
    with demo(target, tiny_base, limits, steps=30) as first:
        assert first.stdout is not None
        for line in first.stdout:
            if "train" in json.loads(line).get("note", ""):
                break
        first.send_signal(signal.SIGINT)
        assert ended(first, target)[-1]["kind"] == "interrupted"
    with demo(target, tiny_base, limits, steps=30) as second:
        events = ended(second, target)
    assert second.returncode == 0, events[-1]
    made = (target / "dataset.zip").read_bytes()
    with demo(target, tiny_base, limits, steps=30) as third:
        events = ended(third, target)
    assert any("already trained on the same inputs" in event.get("text", "") for event in events)
    assert (target / "dataset.zip").read_bytes() == made
