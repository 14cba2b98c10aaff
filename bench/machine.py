"""Describes the machine that was measured on."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

SERVICE = ("torch", "diffusers", "fastapi", "uvicorn", "celery", "redis", "hiredis")
MODEL = ("torch", "diffusers", "transformers", "peft")


def machine(load_before: tuple[float, float, float], packages: Sequence[str], gpu: str = "") -> str:
    """Describe processor, GPU, versions and load, in a line.

    Args:
        load_before: `os.getloadavg()` before anything was started.
        packages: packages whose versions matter.
        gpu: name of the GPU, if it is used.
    """
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    name = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    loads = " ".join(f"{load:.1f}" for load in load_before)
    return (
        f"{f'{gpu}, ' if gpu else ''}{name}, {len(os.sched_getaffinity(0))} cores; Python {platform.python_version()}, "
        f"{versions}; load before (1, 5, 15 minutes): {loads}"
    )
