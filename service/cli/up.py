"""`pairforge up`: the whole service on this machine, until Ctrl-C."""

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
"""Seconds between two looks at whether all still run."""

ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_stack(options: StackOptions, output: Output, *, json: bool) -> None:
    """Start a stack, tell where it is, and keep it running until a signal asks for its end.

    Raises:
        UsageError: it cannot start as it was asked to.
        TransientError: a process does not come up.
    """
    from service.embedded.stack import Stack

    with Stack(options, output.note) as stack:
        for ending in ENDINGS:
            signal.signal(ending, _interrupt)
        try:
            if not json:
                output.note(f"starting Redis, S3, the API and {_count(options.workers)} in {stack.path}")
            running = stack.start()
            _tell_ready(stack, running, output, json=json)
            while True:
                stack.tend()
                time.sleep(LOOK_EVERY)
        except KeyboardInterrupt:
            if not json:
                output.note("stopping; the workers hand over what they are at (again Ctrl-C: at once)")
    if json:
        output.event("stopped", {"data_dir": str(stack.path)})


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _tell_ready(stack: Stack, running: Running, output: Output, *, json: bool) -> None:
    keys = running.environment["PAIRFORGE_REQUIRE_KEYS"] == "true"
    facts = {"url": running.url, "docs": f"{running.url}/docs", "data_dir": str(stack.path), "pid": os.getpid()}
    if json:
        output.event("ready", {**facts, "worker_metrics": running.worker_metrics, "require_keys": keys})
        return
    key = f"pairforge keys create NAME --data-dir {stack.path}" if keys else "not needed from this machine"
    typer.echo(
        "PairForge is ready.\n"
        f"  API      {running.url}\n"
        f"  docs     {facts['docs']}\n"
        f"  keys     {key}\n"
        f"  data     {stack.path} (logs/ tells what happens)\n"
        f"  metrics  {' '.join([f'{running.url}/metrics', *running.worker_metrics])}\n"
        f"In another terminal:{_export(stack.path, running.url)}\n"
        "  pairforge adapters create IMAGES MASKS --wait\n"
        "Stop with Ctrl-C; the same command goes on with what is unfinished."
    )


def _export(path: Path, url: str) -> str:
    """Clients find the stack in the default folder by themselves."""
    from service.embedded.folder import default_data_dir

    return "" if path == default_data_dir().resolve() else f"\n  export PAIRFORGE_URL={url}"


def _count(workers: int) -> str:
    return "a worker" if workers == 1 else f"{workers} workers"
