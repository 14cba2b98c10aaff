"""Checks whether passes can be compiled on this machine, and logs it when a worker starts.

A failure later only costs speed. The checks do not import torch, which the worker's parent does not load.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import structlog

from service.core.settings import Settings

log = structlog.stdlib.get_logger(__name__)

DRIVER = Path("/dev/nvidiactl")
"""Exists if the NVIDIA driver is loaded."""


def log_compiling(settings: Settings) -> None:
    """Log whether passes will be compiled; logs nothing without a GPU, since nothing is compiled then."""
    on_gpu = settings.device.startswith("cuda") or (settings.device == "auto" and DRIVER.exists())
    if not on_gpu:
        return
    if problems := obstacles():
        log.warning("passes_not_compiled", why="; ".join(problems))
    else:
        log.info("passes_compiled", compiler=compiler(), folders=[str(folder) for folder in folders()])


def obstacles() -> list[str]:
    """Return the reasons why passes cannot be compiled, one sentence each."""
    found = [] if compiler() is not None else ["there is no C compiler: install gcc or clang, or set CC"]
    return found + [problem for folder in folders() if (problem := unusable(folder)) is not None]


def compiler() -> str | None:
    """Return the C compiler that Triton will call."""
    return os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")


def folders() -> list[Path]:
    """Return the folders in which Inductor and Triton keep compiled code, and from which they run it."""
    own = {
        "TORCHINDUCTOR_CACHE_DIR": Path(tempfile.gettempdir()) / "torchinductor",
        "TRITON_CACHE_DIR": Path.home() / ".triton" / "cache",
    }
    return [Path(os.environ.get(name) or folder) for name, folder in own.items()]


def unusable(folder: Path) -> str | None:
    """Create a folder; returns why compiled code cannot be kept there and run from there, or None if it can."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.statvfs(folder).f_flag & os.ST_NOEXEC:
            return f"{folder} is mounted noexec, so compiled code cannot run from it"
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return f"{folder} cannot be written: {error.strerror}"
