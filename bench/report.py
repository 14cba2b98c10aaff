"""The figures as a table: what was measured, what it is to be, and on what."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median

from bench.load import Load
from bench.service import Answered, Figures
from bench.sides import Made

PACKAGES = ("torch", "diffusers", "fastapi", "uvicorn", "celery", "redis", "hiredis")

TARGET = "500/s, p99 < 50 ms"

HEAD = ("what", "measured", "target")


def table(figures: Figures) -> str:
    """The figures in Markdown; those of several rounds by their medians."""
    rows = [HEAD, ("---", "---:", "---:")]
    for part in (_overhead, _first, _workers, _requests):
        rows += part(figures)
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def machine(load_before: tuple[float, float, float]) -> str:
    """What it was measured on.

    Args:
        load_before: `os.getloadavg()` before anything was started.
    """
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    name = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    loads = " ".join(f"{load:.1f}" for load in load_before)
    return (
        f"{name}, {len(os.sched_getaffinity(0))} cores; Python {platform.python_version()}, {versions}; "
        f"load before (1, 5, 15 minutes): {loads}"
    )


def _overhead(figures: Figures) -> list[tuple[str, str, str]]:
    alone, served = figures.library, figures.service
    if not alone:
        return []
    what = f"{figures.pairs} pairs, {figures.threads} threads"
    extra = _ratios(served, alone, lambda made: made.seconds)
    work = _ratios(served, alone, lambda made: made.processor)
    return [
        (f"{what}: bare library", f"{median(made.seconds for made in alone):.1f} s", ""),
        (f"{what}: service", f"{median(made.seconds for made in served):.1f} s", ""),
        ("overhead of the service, time", f"{100 * (median(extra) - 1):+.1f} %", "< 5 %"),
        ("overhead of the service, processor time", f"{100 * (median(work) - 1):+.1f} %", ""),
    ]


def _first(figures: Figures) -> list[tuple[str, str, str]]:
    rows = []
    if figures.service:
        alone = median(made.first for made in figures.library)
        served = median(made.first for made in figures.service)
        told = f"{served:.1f} s, {served / alone:.2f} × library"
        rows.append((f"POST to first accepted pair, warm, {figures.threads} threads", told, ""))
    if figures.cold:
        rows.append(
            ("POST to first accepted pair, worker just started, 1 thread", f"{figures.cold[0].first:.1f} s", "")
        )
    return rows


def _workers(figures: Figures) -> list[tuple[str, str, str]]:
    rates = {number: median(figures.pairs / made.seconds for made in runs) for number, runs in figures.workers.items()}
    rows = [
        (f"{number} worker{'s' if number > 1 else ''} of 1 thread", f"{rate:.2f} pairs/s", "")
        for number, rate in rates.items()
    ]
    if len(rates) == 2:
        rows.append(("2 workers over 1", f"{rates[2] / rates[1]:.2f} ×", ""))
    return rows


def _requests(figures: Figures) -> list[tuple[str, str, str]]:
    return [
        (f"GET /jobs/{{id}}, {besides}, {_asked(each.load)}", _told(each), TARGET if each.load.wanted else "")
        for besides, answered in figures.requests.items()
        for each in answered
    ]


def _asked(load: Load) -> str:
    return f"{load.wanted:g}/s asked for" if load.wanted else f"as many as {load.connections} connections get"


def _told(answered: Answered) -> str:
    load = answered.load
    wrong = f", {load.wrong} refused" if load.wrong else ""
    times = f"p50 {load.p50_ms:.1f} ms, p99 {load.p99_ms:.1f} ms"
    cost = f"API {answered.api_ms:.2f} ms of a core each, generator {load.core_share:.2f} cores"
    return f"{load.rate:.0f}/s, {times}{wrong} ({cost})"


def _ratios(ours: Sequence[Made], theirs: Sequence[Made], of: Callable[[Made], float]) -> list[float]:
    return [of(our) / of(their) for our, their in zip(ours, theirs, strict=True)]
