"""Whether passes can be compiled on this machine, told when a worker starts: a failure later is only a lack of speed.

Looked at without torch, which the worker's parent does without.
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
"""There where the driver of NVIDIA GPUs is."""


def tell_compiling(settings: Settings) -> None:
    """Log whether passes will be compiled; nothing where no GPU is used, since nothing is compiled there."""
    on_gpu = settings.device.startswith("cuda") or (settings.device == "auto" and DRIVER.exists())
    if not on_gpu:
        return
    if problems := obstacles():
        log.warning("passes_not_compiled", why="; ".join(problems))
    else:
        log.info("passes_compiled", compiler=compiler(), folders=[str(folder) for folder in folders()])


def obstacles() -> list[str]:
    """What keeps passes from being compiled, one sentence each."""
    found = [] if compiler() is not None else ["there is no C compiler (gcc, clang, or what CC names)"]
    return found + [problem for folder in folders() if (problem := unusable(folder)) is not None]


def compiler() -> str | None:
    """The C compiler that Triton will call."""
    return os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")


def folders() -> list[Path]:
    """Where Inductor and Triton keep what they have compiled, and run it from."""
    own = {
        "TORCHINDUCTOR_CACHE_DIR": Path(tempfile.gettempdir()) / "torchinductor",
        "TRITON_CACHE_DIR": Path.home() / ".triton" / "cache",
    }
    return [Path(os.environ.get(name) or folder) for name, folder in own.items()]


def unusable(folder: Path) -> str | None:
    """Why compiled code cannot be kept in a folder and run from there; None where it can. The folder is made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.statvfs(folder).f_flag & os.ST_NOEXEC:
            return f"nothing may be run from {folder}, which is mounted noexec"
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return f"{folder} cannot be written: {error.strerror}"
