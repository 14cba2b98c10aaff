"""Stacks that tests start as a user would, and small requests to them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

from model.pretrain.procedural.samples import SAMPLES
from service.client import Client, Resource
from service.embedded.processes import marked

SMALL: dict[str, Any] = {"batch": 1, "views": 1, "rank": 2, "text_rank": 0, "mask_steps": 0, "seed": 3}

LENIENT = {
    **dict.fromkeys(("min_area_ratio", "min_width_ratio", "min_visibility_ratio", "min_visibility"), 0),
    **dict.fromkeys(("min_change_ratio", "min_change_inside"), 0),
    **dict.fromkeys(("max_area_ratio", "max_width_ratio", "border_ratio", "max_unlikeness", "max_ledge"), 1000),
    **dict.fromkeys(("min_border_share", "max_cut_share", "max_off_object", "full_area"), 1),
    **dict.fromkeys(("defect_copy", "scene_copy", "accepted_copy", "max_copy"), 1),
    "max_disagreement": 255,
}
"""Limits that random weights can keep."""

SAMPLED: dict[str, Any] = {"steps": 2, "batch": 2, "mask_method": "threshold", "seed": 5, "limits": LENIENT}


class Up:
    """`pairforge up` as a process.

    Args:
        data_dir: its data folder.
        base: the folder of a base.
        options: further arguments.
        lease_seconds: short ones tell soon of a worker's death, and run out where the machine has too much to do.
    """

    def __init__(self, data_dir: Path, base: Path, *options: str, lease_seconds: int = 6) -> None:
        self.data_dir = data_dir
        command = [sys.executable, "-c", "from model.cli import main; main()", "up", "--json"]
        self.process = subprocess.Popen(
            [*command, "--data-dir", str(data_dir), *options],
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "PAIRFORGE_BASE": str(base),
                "PAIRFORGE_DEVICE": "cpu",
                "PAIRFORGE_LEASE_SECONDS": str(lease_seconds),
            },
        )
        try:
            self.ready = self.event("ready")
        except BaseException:  # also when the test's time is over: nothing may stay behind
            self.end(signal.SIGKILL)
            raise
        self.url: str = self.ready["url"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end(signal.SIGKILL)

    def event(self, name: str) -> dict[str, Any]:
        """The next event of that name that it tells."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            event: dict[str, Any] = json.loads(line)
            if event["event"] == name:
                return event
        raise AssertionError(f"it ended with {self.process.wait()} before telling {name}")

    def end(self, number: signal.Signals) -> int:
        """Send a signal, and wait until it and all that it started are gone."""
        self.process.send_signal(number)
        self.process.communicate(timeout=100)
        nothing_is_left_of(self.data_dir)
        return self.process.returncode

    def client(self) -> Client:
        return Client(self.url)


def nothing_is_left_of(data_dir: Path) -> None:
    """Wait until the last process of a stack is gone."""
    deadline = time.monotonic() + 60
    while marked(data_dir.resolve()):
        assert time.monotonic() < deadline, "processes were left behind"
        time.sleep(0.05)


def pictures(kind: str) -> list[Path]:
    return sorted((SAMPLES / kind).iterdir())


def small_adapter(client: Client, steps: int = 4, **options: Any) -> Resource:
    """A training on three of the samples, just begun."""
    images, masks = pictures("images")[:3], pictures("masks")[:3]
    return client.create_adapter(images, masks, name="hole", steps=steps, **SMALL, **options)
