from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from PIL import Image

from service.embedded.processes import marked
from tests.embedded.running import LENIENT

pytestmark = pytest.mark.timeout(600)


def demo(target: Path, base: Path, limits: Path) -> subprocess.Popen[str]:
    arguments = ["demo", "--out", target, "--base", base, "--limits", limits, "--steps", "30", "-n", "2", "--json"]
    command = [sys.executable, "-c", "from model.cli import main; main()", *map(str, arguments)]
    environment = {**os.environ, "PAIRFORGE_LEASE_SECONDS": "6"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def ended(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    told, _ = process.communicate()
    return [json.loads(line) for line in told.splitlines()]


def test_the_demo_resumes_ends_with_dataset_and_preview_and_uses_its_adapter_again(
    tiny_base: Path, tmp_path: Path
) -> None:
    (tmp_path / "limits.json").write_text(json.dumps(LENIENT))
    target = tmp_path / "demo"
    arguments = (target, tiny_base, tmp_path / "limits.json")
    with demo(*arguments) as first:
        assert first.stdout is not None
        for line in first.stdout:
            if "train" in json.loads(line).get("note", ""):
                break
        first.send_signal(signal.SIGINT)
        assert ended(first)[-1]["kind"] == "interrupted"
    assert marked(target / ".stack") == []
    with demo(*arguments) as second:
        events = ended(second)
    assert second.returncode == 0, events[-1]
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
    made = (target / "dataset.zip").read_bytes()
    with demo(*arguments) as third:
        events = ended(third)
    assert any("trained on the same before" in event.get("text", "") for event in events)
    assert (target / "dataset.zip").read_bytes() == made
    assert marked(target / ".stack") == []
