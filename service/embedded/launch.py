"""Runs a stack in a separate process for the duration of a `with` block."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from service.core.errors import TransientError, UsageError
from service.embedded.parent_death import PYTHON, ended_with_parent

PATIENCE = 120.0
"""Seconds that the stack gets to stop in order."""


@contextmanager
def launched(data_dir: Path, settings: Mapping[str, str]) -> Iterator[str]:
    """Run `pairforge up` in `data_dir`; yields the API's URL once it is ready.

    Args:
        settings: environment variables of API and workers.

    Raises:
        UsageError: the stack cannot start.
        TransientError: it does not become ready.
    """
    arguments = [*PYTHON, "service.cli", "up", "--json", "--data-dir", str(data_dir.resolve())]
    process = subprocess.Popen(  # noqa: S603 - our own module
        ended_with_parent(arguments, signal.SIGTERM),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **settings},
        # Ctrl-C reaches only the caller; the stack ends after it.
        start_new_session=True,
    )
    with process:
        try:
            yield _url(process)
        finally:
            process.terminate()
            try:
                process.communicate(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                # Its children end with it, see `parent_death`.
                process.kill()


def _url(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None  # noqa: S101 - a pipe was asked for
    for line in process.stdout:
        event = json.loads(line)
        if event["event"] == "ready":
            return str(event["url"])
        if event["event"] == "error":
            if event["kind"] == "usage":
                raise UsageError(event["problems"], event["summary"])
            raise TransientError("\n".join(event["problems"]))
    raise TransientError(f"the stack ended with code {process.wait()} before it was ready")
