"""What the service costs and what it bears, on this machine.

`overhead`: the service beside the bare library, for the same pairs. `workers`: pairs per second with one and with two
workers of one thread each. `requests`: `GET /jobs/{id}` with keys, while a job runs and while none does.
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
"""One batch of the default size: models, threads and memory are ready after it."""

LONG_JOB = 5000
"""Pairs of a job that goes on for as long as requests are measured; it is cancelled then."""

CONNECTIONS = 16

API = "service.main:create_app"
"""In the command line of the API's process."""

TARGET_RATE = 500.0
"""Requests per second that the API is to bear."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A load, and what it cost the API.

    Attributes:
        api_ms: processor time of the API's process per request; other programs on the machine hardly change it.
    """

    load: Load
    api_ms: float


@dataclass(slots=True)
class Figures:
    """All that was measured; what was left out is empty.

    Attributes:
        pairs: pairs of every dataset.
        threads: of the library, and of the service's one worker beside it.
        library, service: one entry per round.
        cold: the first job of a worker that has just started.
        workers: number of workers → one entry per round.
        requests: what went on besides → loads.
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
    tell: Callable[[str], None],
) -> Figures:
    """Run the parts that are wanted.

    Args:
        folder: for the stack and the adapter, removed by the caller.
        pairs: of every dataset.
        rounds: datasets per side; the sides take turns.
        seconds: each load goes on for.
        threads: of the library, and of the service's one worker beside it.
        tell: where remarks on what goes on go.
    """
    figures = Figures(pairs, threads)
    stack, own = folder / "stack", folder / "adapter"
    tell("starting a stack and training an adapter for a few steps")
    with service(stack, 1, threads) as asked:
        adapter, key = asked.train(), asked.key
        asked.client.download_adapter(adapter, own)
        if "overhead" in parts:
            with library(own, threads) as bare:
                _overhead(figures, bare, asked, adapter, rounds, tell)
        if "requests" in parts:
            _requests(figures, asked, adapter, seconds, tell)
    if "workers" in parts:
        for number in (1, 2):
            tell(f"starting {number} worker(s) of one thread")
            with service(stack, number, 1, key) as asked:
                figures.cold.append(asked.make(adapter, WARM_PAIRS, 0))
                # Twice as many batches as workers, so that each gets one.
                asked.make(adapter, 2 * number * WARM_PAIRS, 1)
                for turn in range(rounds):
                    figures.workers.setdefault(number, []).append(_told(tell, asked.make(adapter, pairs, 2 + turn)))
    return figures


def _overhead(
    figures: Figures, bare: Library, asked: Service, adapter: str, rounds: int, tell: Callable[[str], None]
) -> None:
    tell("warming both sides")
    bare.make(WARM_PAIRS, 0)
    asked.make(adapter, WARM_PAIRS, 0)
    for turn in range(rounds):
        for side in ("library", "service") if turn % 2 == 0 else ("service", "library"):
            tell(f"round {turn + 1} of {rounds}: {figures.pairs} pairs by the {side}")
            if side == "library":
                figures.library.append(_told(tell, bare.make(figures.pairs, 2 + turn)))
            else:
                figures.service.append(_told(tell, asked.make(adapter, figures.pairs, 2 + turn)))
    # The comparison is of the same work, and the zips show that it was.
    for alone, served in zip(figures.library, figures.service, strict=True):
        tell(f"the datasets are {'the same, byte for byte' if alone.sha256 == served.sha256 else 'NOT the same'}")


def _requests(figures: Figures, asked: Service, adapter: str, seconds: float, tell: Callable[[str], None]) -> None:
    job = asked.begin(adapter, LONG_JOB, 0)
    for resource in iter(lambda: asked.client.get(job), None):
        if (resource.counts or {}).get("attempts"):
            break
    for besides in ("a job runs", "no job runs"):
        for wanted in (TARGET_RATE, 0.0):
            tell(f"{seconds:g} s of requests while {besides}, {wanted:g} per second" if wanted else "as many as go")
            figures.requests.setdefault(besides, []).append(_load(asked, job, seconds, wanted))
        if besides == "a job runs":
            if asked.client.get(job).state != "running":
                raise RuntimeError(f"{job} ended while it was to run")
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


def _told(tell: Callable[[str], None], made: Made) -> Made:
    tell(f"  {made.seconds:.1f} s, {made.processor:.1f} s of processor time, {made.attempts} candidates")
    return made
