"""Measures the service's overhead and capacity on this machine.

`overhead`: the service compared with the bare library, for the same pairs. `workers`: pairs per second with one and
with two workers of one thread each. `requests`: `GET /jobs/{id}` with keys, with and without a running job.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.load import Load
from bench.sides import ROOT, Library, Made, Service, library, service

WARM_PAIRS = 8
"""Pairs of a warm-up: one batch of the default size, after which models, threads and memory are ready."""

LONG_JOB = 5000
"""Pairs of a job that runs during the measurement of requests, and is then cancelled."""

CONNECTIONS = 16

API = "service.main:create_app"
"""Word in the command line of the API's process."""

TARGET_RATE = 500.0
"""Requests per second that the API should serve."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The result of a load, and its cost to the API.

    Attributes:
        api_ms: processor time of the API's process per request; other programs on the machine hardly change it.
    """

    load: Load
    api_ms: float


@dataclass(slots=True)
class Figures:
    """All figures; those not measured are empty.

    Attributes:
        pairs: pairs of every dataset.
        threads: threads of the library, and of the service's only worker.
        library, service: one entry per round.
        cold: the first job of a newly started worker.
        workers: number of workers → one entry per round.
        requests: load of the worker meanwhile → loads of requests.
    """

    pairs: int
    threads: int
    library: list[Made] = field(default_factory=list)
    service: list[Made] = field(default_factory=list)
    cold: list[Made] = field(default_factory=list)
    workers: dict[int, list[Made]] = field(default_factory=dict)
    requests: dict[str, list[Answered]] = field(default_factory=dict)


def measure(
    folder: Path,
    parts: Sequence[str],
    *,
    pairs: int,
    rounds: int,
    seconds: float,
    threads: int,
    report: Callable[[str], None],
) -> Figures:
    """Run the chosen parts.

    Args:
        folder: folder for the stack and the adapter, removed by the caller.
        pairs: pairs of every dataset.
        rounds: datasets per side; the sides take turns.
        seconds: duration of each load.
        threads: threads of the library, and of the service's only worker.
        report: called with progress messages.
    """
    figures = Figures(pairs, threads)
    stack, own = folder / "stack", folder / "adapter"
    report("starting a stack and training an adapter for a few steps")
    with service(stack, 1, threads) as asked:
        adapter, key = asked.train(), asked.key
        asked.client.download_adapter(adapter, own)
        if "overhead" in parts:
            with library(own, threads) as bare:
                _overhead(figures, bare, asked, adapter, rounds, report)
        if "requests" in parts:
            _requests(figures, asked, adapter, seconds, report)
    if "workers" in parts:
        for number in (1, 2):
            report(f"starting {number} worker(s) of one thread")
            with service(stack, number, 1, key) as asked:
                figures.cold.append(asked.make(adapter, WARM_PAIRS, 0))
                # Twice as many batches as workers, so that each gets one.
                asked.make(adapter, 2 * number * WARM_PAIRS, 1)
                for turn in range(rounds):
                    figures.workers.setdefault(number, []).append(
                        _reported(report, asked.make(adapter, pairs, 2 + turn))
                    )
    return figures


def _overhead(
    figures: Figures, bare: Library, asked: Service, adapter: str, rounds: int, report: Callable[[str], None]
) -> None:
    report("warming up both sides")
    bare.make(WARM_PAIRS, 0)
    asked.make(adapter, WARM_PAIRS, 0)
    for turn in range(rounds):
        for side in ("library", "service") if turn % 2 == 0 else ("service", "library"):
            report(f"round {turn + 1} of {rounds}: {figures.pairs} pairs by the {side}")
            if side == "library":
                figures.library.append(_reported(report, bare.make(figures.pairs, 2 + turn)))
            else:
                figures.service.append(_reported(report, asked.make(adapter, figures.pairs, 2 + turn)))
    # Equal zips show that both sides did the same work.
    for alone, served in zip(figures.library, figures.service, strict=True):
        report(f"the datasets are {'the same, byte for byte' if alone.sha256 == served.sha256 else 'NOT the same'}")


def _requests(figures: Figures, asked: Service, adapter: str, seconds: float, report: Callable[[str], None]) -> None:
    job = asked.begin(adapter, LONG_JOB, 0)
    for resource in iter(lambda: asked.client.get(job), None):
        if (resource.counts or {}).get("attempts"):
            break
    for besides in ("a job runs", "no job runs"):
        for wanted in (TARGET_RATE, 0.0):
            report(
                f"{seconds:g} s of requests while {besides}, {f'{wanted:g} per second' if wanted else 'without limit'}"
            )
            figures.requests.setdefault(besides, []).append(_load(asked, job, seconds, wanted))
        if besides == "a job runs":
            if asked.client.get(job).state != "running":
                raise RuntimeError(f"{job} ended too early, during the measurement")
            asked.client.cancel(job)
            asked.client.wait(job)


def _load(asked: Service, job: str, seconds: float, wanted: float) -> Answered:
    arguments = [f"{asked.url}/v1/jobs/{job}", "--connections", str(CONNECTIONS)]
    arguments += ["--seconds", str(seconds), "--rate", str(wanted)]
    before = asked.processor_seconds(API)
    run = subprocess.run(  # noqa: S603 - our own module
        [sys.executable, "-m", "bench.load", *arguments],
        env={**os.environ, "PAIRFORGE_API_KEY": asked.key},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
    )
    load = Load(**json.loads(run.stdout))
    return Answered(load, 1e3 * (asked.processor_seconds(API) - before) / load.requests)


def _reported(report: Callable[[str], None], made: Made) -> Made:
    report(f"  {made.seconds:.1f} s, {made.processor:.1f} s of processor time, {made.attempts} candidates")
    return made
