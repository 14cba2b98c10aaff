"""Output of the commands: a progress bar for people, plain lines for logs, one JSON object per line for programs."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn

from service.client import Resource
from service.core.strict_json import to_json, without_nan

PLAIN_EVERY, JSON_EVERY = 5.0, 1.0
"""Seconds between two lines of progress, and between two JSON events."""


class Output:
    """Writes results to stdout, notes and failures to stderr.

    Args:
        as_json: write everything to stdout as one JSON object per line, whose `event` is "progress", "note", "result"
            or "error".
    """

    def __init__(self, *, as_json: bool) -> None:
        self._json = as_json
        self._every = JSON_EVERY if as_json else PLAIN_EVERY
        self._shown = ("", 0.0)
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[details]}"))
        self._bars = None if as_json or not sys.stdout.isatty() else Progress(*columns, console=Console())
        self._stages: dict[str, TaskID] = {}

    def note(self, text: str) -> None:
        """Write a note."""
        if self._json:
            self.event("note", {"text": text})
        elif self._bars is not None:
            self._bars.console.print(f"note: {text}", markup=False, highlight=False, soft_wrap=True)
        else:
            _say(f"note: {text}", err=True)

    def result(self, facts: Mapping[str, Any], text: str) -> None:
        """End with a result: `facts` for programs, `text` for people."""
        self.close()
        if self._json:
            self.event("result", facts)
        else:
            _say(text)

    def failure(self, kind: str, code: int, problems: Sequence[str], summary: str = "") -> None:
        """End with a failure."""
        self.close()
        if self._json:
            facts = {"kind": kind, "exit_code": code, "summary": summary, "problems": list(problems)}
            self.event("error", facts)
        else:
            lines = [": ".join(filter(None, [summary, *problems]))] if len(problems) == 1 else [summary, *problems]
            _say("error: " + "\n  - ".join(line for line in lines if line), err=True)

    def event(self, name: str, facts: Mapping[str, Any]) -> None:
        """Write one JSON line."""
        _say(to_json(without_nan({"event": name, **facts}), ensure_ascii=False, default=str))

    def progress(self, resource: Resource) -> None:
        """Show the progress of an adapter or a job."""
        stage = resource.progress.stage if resource.progress else resource.state
        if self._bars is not None:
            self._draw(self._bars, stage, resource)
        elif stage != self._shown[0] or time.monotonic() - self._shown[1] >= self._every:
            self._shown = (stage, time.monotonic())
            if self._json:
                self.event("progress", resource.model_dump(include={"id", "state", "progress", "counts"}))
            else:
                _say(f"{resource.id} {describe(resource)}")

    def close(self) -> None:
        """Stop the progress bar and restore the terminal."""
        if self._bars is not None:
            self._bars.stop()

    def _draw(self, bars: Progress, stage: str, resource: Resource) -> None:
        done, total = (resource.progress.completed, resource.progress.total) if resource.progress else (0, None)
        if stage not in self._stages:
            bars.start()
            self._stages[stage] = bars.add_task(stage, total=total, details="")
        bars.update(self._stages[stage], completed=done, total=total, details=describe(resource))


def _say(text: str, *, err: bool = False) -> None:
    # A stack still stops in order when nobody reads its output any more.
    with suppress(BrokenPipeError):
        typer.echo(text, err=err)


def describe(resource: Resource) -> str:
    """Summarize stage, count, loss and time left in a few words."""
    progress = resource.progress
    if progress is None or resource.finished:
        return resource.state
    parts = [progress.stage, f"{progress.completed}/{progress.total} {progress.unit}".rstrip()]
    if progress.loss is not None:
        parts.append(f"loss {progress.loss:.4f}")
    if progress.eta is not None and progress.completed < progress.total:
        parts.append(f"{clock(progress.eta)} left")
    return " ".join(parts)


def clock(seconds: float) -> str:
    """Format a duration as `1:05`, or as `2:01:05` from one hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Format rows as left-aligned columns; the first row is the heading."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
