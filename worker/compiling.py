"""Checks whether passes can be compiled on this machine, and logs it when a worker starts.

A failure later only costs speed. The checks do not import torch, which the worker's parent does not load, but do what
Triton does: compile a small C library against Python's headers, and load it.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path

import structlog

from service.core.settings import Settings

log = structlog.stdlib.get_logger(__name__)

DRIVER = Path("/dev/nvidiactl")
"""Exists if the NVIDIA driver is loaded."""

PROBE = """#include <Python.h>
int one(void);
int one(void) { return 1; }
"""

PATIENCE = 60.0
"""Seconds for the compiler, which takes a fraction of one on an idle machine."""


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
    program = compiler()
    found = [] if program is not None else ["there is no C compiler: install gcc or clang, or set CC"]
    found += [problem for folder in folders() if (problem := unusable(folder)) is not None]
    if program is not None and not found and (problem := uncompilable(program, folders()[-1])) is not None:
        found.append(problem)
    return found


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


def uncompilable(program: str, folder: Path) -> str | None:
    """Compile a library in a folder and load it; returns why that fails, or None if it does not."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        source, library = Path(name) / "probe.c", Path(name) / "probe.so"
        source.write_text(PROBE, encoding="ascii")
        command = [program, "-shared", "-fPIC", f"-I{sysconfig.get_path('include')}", "-o", str(library), str(source)]
        try:
            run = subprocess.run(  # noqa: S603 - the compiler that Triton will call
                command, capture_output=True, text=True, timeout=PATIENCE, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"the C compiler cannot be run: {error}"
        if run.returncode:
            said = next((line for line in run.stderr.splitlines() if "error" in line), run.stderr.strip()[-300:])
            return f"the C compiler {program} fails: {said or f'it ends with {run.returncode}'}"
        try:
            ctypes.CDLL(str(library))
        except OSError as error:
            return f"what the C compiler {program} makes cannot be loaded: {error}"
    return None
