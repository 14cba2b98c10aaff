"""Implements `pairforge up`, which runs the whole service on this machine until Ctrl-C."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import typer

from service.cli.output import Output

if TYPE_CHECKING:
    from service.embedded.folder import Running
    from service.embedded.stack import Stack, StackOptions

LOOK_EVERY = 0.2
"""Seconds between two checks that all processes run."""

ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_stack(options: StackOptions, output: Output, *, json: bool) -> None:
    """Start a stack, show its addresses, and keep it running until a signal ends it.

    Raises:
        UsageError: the options cannot be used.
        TransientError: a process does not start.
    """
    from service.embedded.stack import Stack

    with Stack(options, output.note) as stack:
        for ending in ENDINGS:
            signal.signal(ending, _interrupt)
        try:
            if not json:
                output.note(f"starting Redis, S3, the API and {_count(options.workers)} in {stack.path}")
            running = stack.start()
            _show_ready(stack, running, output, json=json)
            while True:
                stack.supervise()
                time.sleep(LOOK_EVERY)
        except KeyboardInterrupt:
            if not json:
                output.note("stopping; the workers save their work (press Ctrl-C again to stop at once)")
    if json:
        output.event("stopped", {"data_dir": str(stack.path)})


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _show_ready(stack: Stack, running: Running, output: Output, *, json: bool) -> None:
    keys = running.environment["PAIRFORGE_REQUIRE_KEYS"] == "true"
    facts = {
        "url": running.url,
        "page": f"{running.url}/",
        "docs": f"{running.url}/docs",
        "data_dir": str(stack.path),
        "pid": os.getpid(),
    }
    if json:
        output.event("ready", {**facts, "worker_metrics": running.worker_metrics, "require_keys": keys})
        return
    key = f"pairforge keys create NAME --data-dir {stack.path}" if keys else "not needed from this machine"
    typer.echo(
        "PairForge is ready.\n"
        f"  page     {facts['page']}\n"
        f"  API      {running.url}\n"
        f"  docs     {facts['docs']}\n"
        f"  keys     {key}\n"
        f"  data     {stack.path} (logs are in logs/)\n"
        f"  metrics  {' '.join([f'{running.url}/metrics', *running.worker_metrics])}\n"
        f"Open the page in a browser, or work in another terminal:{_export(stack.path, running.url)}\n"
        "  pairforge adapters create IMAGES MASKS --wait\n"
        "Stop with Ctrl-C; the same command continues unfinished work."
    )


def _export(path: Path, url: str) -> str:
    """Return the `export` line, which clients need only for stacks outside the default folder."""
    from service.embedded.folder import default_data_dir

    return "" if path == default_data_dir().resolve() else f"\n  export PAIRFORGE_URL={url}"


def _count(workers: int) -> str:
    return "a worker" if workers == 1 else f"{workers} workers"
