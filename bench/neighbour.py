"""Measures how fast a training runs alone, and beside one process that keeps a core busy.

Three ways to train: the command line, `pairforge up`, and a worker that was started by itself. Each is measured as it
is shipped and with threads that wait spinning, which is OpenMP's way without PairForge's settings.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.machine import MODEL, machine
from bench.sides import ROOT, Service
from model.pretrain.procedural.samples import DEFECT, OBJECT, SAMPLES
from model.runtime.threads import BRIEFLY
from service.core.strict_json import to_json
from service.embedded.processes import marked
from service.embedded.stack import Stack, StackOptions

SPINNING = {"OMP_WAIT_POLICY": "active", "GOMP_SPINCOUNT": "infinite", "KMP_BLOCKTIME": "infinite"}
"""The settings of `model.runtime.threads`, turned round."""

STEPS = 100_000
"""More than a measurement takes: it is ended, not waited for."""

KEPT_ALONE, KEPT_BESIDE = 0.85, 0.5
"""Shares that the shipped settings should keep: of the spinning speed alone, and of their own beside a busy process."""

Steps = Iterator[int]
"""Yields the steps done, whenever they are told."""


@dataclass(frozen=True, slots=True)
class Speed:
    """Steps per second of one way to train with one setting, alone and beside a busy process."""

    way: str
    setting: str
    alone: float
    beside: float


def run_neighbour(into: Path, loads: tuple[float, float, float], seconds: float, report: Callable[[str], None]) -> str:
    """Measure all ways; returns the table, which is also written with its figures.

    Args:
        seconds: duration of each measurement.
    """
    began, speeds = time.monotonic(), []
    for way, training in WAYS.items():
        for setting, variables in SETTINGS.items():
            report(f"{way}, {setting}")
            with training(_environment(variables), into) as steps:
                speed = Speed(way, setting, *_measured(steps, seconds))
            report(f"  {speed.alone:.2f} steps/s alone, {speed.beside:.2f} beside a busy process")
            speeds.append(speed)
    took = f"{time.monotonic() - began:.0f} s in all"
    text = f"{neighbour_table(speeds)}\n{machine(loads, MODEL)}; {seconds:g} s each, {took}\n"
    into.mkdir(parents=True, exist_ok=True)
    (into / "neighbour.md").write_text(text, encoding="utf-8")
    (into / "neighbour.json").write_text(to_json([asdict(speed) for speed in speeds], indent=1), encoding="utf-8")
    return text


def neighbour_table(speeds: list[Speed]) -> str:
    """Format the speeds as a Markdown table, those as shipped with what they should keep."""
    fastest = {speed.way: speed.alone for speed in speeds if speed.setting == "spinning"}
    lines = ["| training by | threads wait | alone | beside a busy process | target |", "|---|---|---:|---:|---|"]
    for speed in speeds:
        share = speed.beside / speed.alone
        row = f"| {speed.way} | {speed.setting} | {speed.alone:.2f} steps/s | {speed.beside:.2f} steps/s, {share:.0%} |"
        if speed.setting == "as shipped" and speed.way in fastest:
            alone = speed.alone / fastest[speed.way]
            kept = alone >= KEPT_ALONE and share >= KEPT_BESIDE
            target = f"≥ {KEPT_ALONE:.0%} of spinning, ≥ {KEPT_BESIDE:.0%} beside"
            row += f" {target}: {alone:.0%} and {share:.0%}, {'kept' if kept else 'MISSED'} |"
        else:
            row += " |"
        lines.append(row)
    return "".join(f"{line}\n" for line in lines)


def _measured(steps: Steps, seconds: float) -> tuple[float, float]:
    """Return steps per second alone and beside a busy process, after the first steps."""
    while next(steps) < 1:
        pass
    alone = _rate(steps, seconds)
    with _busy():
        beside = _rate(steps, seconds)
    return alone, beside


def _rate(steps: Steps, seconds: float) -> float:
    """Return the steps per second between the first and the last report within so many seconds."""
    first, began = next(steps), time.monotonic()
    last, ended = first, began
    while ended - began < seconds or last == first:
        last, ended = next(steps), time.monotonic()
    return (last - first) / (ended - began)


@contextmanager
def _busy() -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return this environment without what the benchmark's own start has set, and with these variables."""
    inherited = {name: value for name, value in os.environ.items() if name not in {*BRIEFLY, "OMP_NUM_THREADS"}}
    return {**inherited, **variables}


@contextmanager
def _command_line(environment: Mapping[str, str], folder: Path) -> Iterator[Steps]:
    out = folder / "neighbour-adapter"
    command = [sys.executable, "-c", "from model.cli import main; main()", "train", "--json", "--force"]
    command += [str(SAMPLES / "images"), str(SAMPLES / "masks"), "--normals", str(SAMPLES / "normals")]
    command += ["--out", str(out), "--object", OBJECT, "--defect", DEFECT, "--steps", str(STEPS)]
    with subprocess.Popen(command, env=dict(environment), cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        reports: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        reader = threading.Thread(target=_read, args=(process, reports))
        reader.start()
        try:
            yield iter(reports.get, None)
        finally:
            process.kill()
            reader.join()


def _read(process: subprocess.Popen[str], reports: queue.SimpleQueue[int | None]) -> None:
    """Pass on the steps that a training tells, when it tells them, and None at its end."""
    for line in process.stdout or ():
        event = json.loads(line)
        if event["event"] == "progress" and event["stage"] == "train":
            reports.put(event["completed"])
    reports.put(None)


@contextmanager
def _up(environment: Mapping[str, str], folder: Path) -> Iterator[Steps]:
    with _stack(environment, folder) as (asked, _):
        yield _polled(asked)


@contextmanager
def _worker(environment: Mapping[str, str], folder: Path) -> Iterator[Steps]:
    with _stack(environment, folder) as (asked, stack):
        _end_workers(stack)
        command = [sys.executable, "-m", "celery", "-A", "worker.app", "worker", "-Q", "train,generate", "-c", "1"]
        variables, nowhere = {**environment, **asked.environment}, subprocess.DEVNULL
        process = subprocess.Popen(command, env=variables, cwd=ROOT, stdout=nowhere, stderr=nowhere)  # noqa: S603
        try:
            yield _polled(asked)
        finally:
            process.terminate()
            process.wait()


@contextmanager
def _stack(environment: Mapping[str, str], folder: Path) -> Iterator[tuple[Service, Path]]:
    """Start a stack as `pairforge up` does; yields access to it, and its folder."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(environment)
    try:
        with Stack(StackOptions(folder / "neighbour-stack", require_keys=True), _ignore) as stack:
            asked = Service(stack.start(), stack.path, None)
            with asked.client:
                yield asked, stack.path
    finally:
        os.environ.clear()
        os.environ.update(before)


def _end_workers(stack: Path) -> None:
    """End the stack's own worker, which nothing starts again while nobody supervises the stack."""
    while workers := [process for process in marked(stack) if _is_worker(process)]:
        for process in workers:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGTERM)
        time.sleep(1)


def _is_worker(process: int) -> bool:
    try:
        return b"worker.app" in Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:  # it has ended
        return False


def _polled(asked: Service) -> Steps:
    """Train on the samples; yield the steps of each new report, and cancel at the end."""
    images, masks, normals = (sorted((SAMPLES / kind).iterdir()) for kind in ("images", "masks", "normals"))
    begun = asked.client.create_adapter(images, masks, normals, name="neighbour", steps=STEPS)
    last = -1
    try:
        while not (adapter := asked.client.get(begun.id)).finished:
            progress = adapter.progress
            if progress is not None and progress.stage == "train" and progress.completed > last:
                last = progress.completed
                yield last
            time.sleep(0.1)
        raise RuntimeError(f"{adapter.id} is {adapter.state}: {adapter.error}")
    finally:
        asked.client.cancel(begun.id)
        asked.client.wait(begun.id)


def _ignore(message: str) -> None:
    pass


WAYS = {"command line": _command_line, "pairforge up": _up, "a worker alone": _worker}
SETTINGS: dict[str, Mapping[str, str]] = {"spinning": SPINNING, "as shipped": {}}
