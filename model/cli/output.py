"""Prints a command's messages: a live display for people, plain lines for logs, JSON lines for machines."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from model.runtime.progress import Progress
from service.core.strict_json import to_json, without_nan

PLAIN_EVERY = 5.0
"""Seconds between two progress lines in a log."""

JSON_EVERY = 1.0
"""Seconds between two JSON progress events."""


PREPARING, PREPARED = (Progress("prepare", done, 1, "") for done in (0, 1))
"""Progress before and after libraries, input and base are loaded."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a command ended without its result.

    Attributes:
        kind: "usage", "transient", "interrupted" or "internal".
        code: the process's exit code.
        problems: one sentence each.
        summary: a heading over them.
    """

    kind: str
    code: int
    problems: Sequence[str]
    summary: str = ""


class Output(Protocol):
    """Shows a command's progress and result."""

    def progress(self, item: Progress) -> None:
        """Show how far the work is."""

    def note(self, text: str) -> None:
        """Show a remark."""

    def result(self, facts: Mapping[str, Any], text: str) -> None:
        """End with a result: `facts` for machines, `text` for people."""

    def failure(self, failure: Failure) -> None:
        """End without a result."""

    def close(self) -> None:
        """Restore the terminal."""


class JsonOutput:
    """Prints one JSON object per line on stdout; `event` is "progress", "note", "result" or "error"."""

    def __init__(self) -> None:
        self._throttle = Throttle(JSON_EVERY)

    def progress(self, item: Progress) -> None:
        if self._throttle.lets_pass(item):
            self._write("progress", asdict(item))

    def note(self, text: str) -> None:
        self._write("note", {"text": text})

    def result(self, facts: Mapping[str, Any], text: str) -> None:
        self._write("result", facts)

    def failure(self, failure: Failure) -> None:
        facts = {"kind": failure.kind, "exit_code": failure.code, "summary": failure.summary}
        self._write("error", {**facts, "problems": list(failure.problems)})

    def close(self) -> None:
        pass

    def _write(self, event: str, facts: Mapping[str, Any]) -> None:
        line = to_json(without_nan({"event": event, **facts}), ensure_ascii=False, default=str)
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


class PlainOutput:
    """Prints progress and result on stdout, problems and notes on stderr."""

    def __init__(self) -> None:
        self._throttle = Throttle(PLAIN_EVERY)

    def progress(self, item: Progress) -> None:
        if self._throttle.lets_pass(item):
            _say(f"{item.stage}: {', '.join(filter(None, _numbers(item).values()))}")

    def note(self, text: str) -> None:
        _say(f"note: {text}", error=True)

    def result(self, facts: Mapping[str, Any], text: str) -> None:
        _say(text)

    def failure(self, failure: Failure) -> None:
        _say(_failure_text(failure), error=True)

    def close(self) -> None:
        pass


class LiveOutput:
    """Shows one bar per stage, redrawn in place ten times a second."""

    def __init__(self) -> None:
        fields = [
            TextColumn(f"{{task.fields[{name}]}}", justify="right") for name in ("count", "rate", "loss", "eta", "note")
        ]
        self._bars = Bars(SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), *fields, console=Console())
        self._stages: dict[str, TaskID] = {}

    def progress(self, item: Progress) -> None:
        numbers = _numbers(item)
        if item.stage not in self._stages:
            self._bars.start()
            self._stages[item.stage] = self._bars.add_task(item.stage, total=item.total, **numbers)
        self._bars.update(self._stages[item.stage], completed=item.completed, total=item.total, **numbers)

    def note(self, text: str) -> None:
        self._bars.console.print(f"note: {text}", markup=False, highlight=False, soft_wrap=True)

    def result(self, facts: Mapping[str, Any], text: str) -> None:
        self.close()
        _say(text)

    def failure(self, failure: Failure) -> None:
        self.close()
        _say(_failure_text(failure), error=True)

    def close(self) -> None:
        self._bars.stop()


class Throttle:
    """Limits progress reports to the first and last of every stage, and one per interval in between."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._stage = ""
        self._last = 0.0

    def lets_pass(self, item: Progress) -> bool:
        now = time.monotonic()
        passes = item.stage != self._stage or item.completed >= item.total or now - self._last >= self._seconds
        if passes:
            self._stage, self._last = item.stage, now
        return passes


def _numbers(item: Progress) -> dict[str, Any]:
    """Return count, rate, loss, time left and note as text; missing ones are empty."""
    return {
        "count": f"{item.completed}/{item.total} {item.unit}".rstrip(),
        "rate": _rate(item.rate, item.unit),
        "loss": "" if item.loss is None else f"loss {item.loss:.4f}",
        "eta": "" if item.eta is None or item.completed >= item.total else f"{duration(item.eta)} left",
        "note": item.note,
    }


def _rate(rate: float, unit: str) -> str:
    if rate <= 0:
        return ""
    return f"{rate:.1f} {unit}/s" if rate >= 1 else f"{1 / rate:.1f} s/{unit.removesuffix('s')}"


def duration(seconds: float) -> str:
    """Format as `1:05`, or as `2:01:05` from an hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _failure_text(failure: Failure) -> str:
    if len(failure.problems) == 1:
        return f"error: {': '.join(filter(None, [failure.summary, *failure.problems]))}"
    return "\n".join(
        [f"error: {failure.summary or 'there are several problems'}:", *(f"  - {line}" for line in failure.problems)]
    )


def _say(text: str, *, error: bool = False) -> None:
    print(text, file=sys.stderr if error else sys.stdout, flush=True)
