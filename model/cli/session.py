"""Runs every command: chooses its output, and turns each kind of failure into an exit code.

0 is success, 1 a defect of ours (with its traceback), 2 bad input, 3 something temporary (no disk space, no memory, no
network), 130 Ctrl-C.
"""

from __future__ import annotations

import shutil
import sys
import warnings
from pathlib import Path
from types import TracebackType

import typer

from model.cli.output import Failure, JsonOutput, LiveOutput, Output, PlainOutput
from model.runtime.library_logging import silence_imports
from model.runtime.malloc import keep_freed_memory
from service.core.disk import disk_is_full
from service.core.errors import TransientError, UsageError

INTERNAL, USAGE, TRANSIENT, INTERRUPTED = 1, 2, 3, 130


class Session:
    """Runs a command's body; reports any failure in the chosen form and as the exit code.

    Args:
        json: whether to print JSON lines instead of text.
        writes: path that the command writes, named in the message when the disk is full.
        interrupted: message on Ctrl-C, on the work done so far.
    """

    def __init__(self, *, json: bool, writes: Path | None = None, interrupted: str = "nothing was written") -> None:
        self._writes = writes
        self._interrupted = interrupted
        live = sys.stdout.isatty() and not json
        self._output: Output = JsonOutput() if json else LiveOutput() if live else PlainOutput()

    def __enter__(self) -> Output:
        silence_imports()
        try:
            keep_freed_memory()
        except UsageError as error:  # the environment names switches that do not exist
            self.__exit__(type(error), error, error.__traceback__)
        if not sys.warnoptions:
            warnings.simplefilter("ignore")
        return self._output

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, typer.Exit):
            self._output.close()
            return
        failure = self._failure(error)
        self._output.failure(failure)
        if failure.code != INTERNAL:
            raise typer.Exit(failure.code) from error

    def _failure(self, error: BaseException) -> Failure:
        temporary = str(error) if isinstance(error, TransientError) else self._shortage(error)
        if temporary:
            return Failure("transient", TRANSIENT, [temporary])
        match error:
            case UsageError():
                return Failure("usage", USAGE, error.problems, error.summary)
            case PermissionError():
                return Failure("usage", USAGE, [f"{error.filename} cannot be written: {error.strerror}"])
            case KeyboardInterrupt():
                return Failure("interrupted", INTERRUPTED, [self._interrupted], "interrupted")
        return Failure("internal", INTERNAL, [f"{type(error).__name__}: {error}"], "this is a bug in PairForge")

    def _shortage(self, error: BaseException) -> str:
        """Return a message if disk space or memory ran out; otherwise an empty string."""
        if disk_is_full(error):
            return self._no_space()
        # torch's own out-of-memory error is named like this; it is not imported here.
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            return "not enough memory: use a smaller --batch or --resolution"
        return ""

    def _no_space(self) -> str:
        place = existing_folder(self._writes or Path.cwd())
        free = shutil.disk_usage(place).free
        return (
            f"the disk is full: {self._writes or 'the files'} cannot be written, {place} has {free:,} bytes free; "
            "free some disk space, or choose another --out"
        )


def existing_folder(path: Path) -> Path:
    """Return the nearest existing folder: `path` itself or one above it."""
    place = path.absolute()
    while not place.exists():
        place = place.parent
    return place if place.is_dir() else place.parent
