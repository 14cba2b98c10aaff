"""Measures how long a training takes, over all processes that worked on it."""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import torch

from service.core.atomic_write import write_text
from service.core.strict_json import to_json

CLOCK_FILE = "elapsed.json"
"""File beside the checkpoints."""


class TrainingClock:
    """Counts the seconds spent on a training."""

    def __init__(self, workspace: Path) -> None:
        workspace.mkdir(parents=True, exist_ok=True)
        self._file = workspace / CLOCK_FILE
        self._began = time.monotonic()
        if self._file.is_file():
            self._began -= json.loads(self._file.read_text(encoding="utf-8"))["seconds"]

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def keep(self) -> None:
        """Save the seconds for a process that resumes the training."""
        write_text(self._file, to_json({"seconds": self.seconds}))

    def record(self, device: torch.device) -> dict[str, Any]:
        """Describe the training that ends now: when, how long, on what machine."""
        return {
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "seconds": round(self.seconds, 1),
            "machine": torch.cuda.get_device_name()
            if device.type == "cuda"
            else f"{platform.machine()}, {os.cpu_count()} cores",
        }
