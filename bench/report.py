"""Formats the service's figures as a table, with their targets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

from bench.load import Load
from bench.service import Answered, Figures
from bench.sides import Made

TARGET = "500/s, p99 < 50 ms"

HEAD = ("what", "measured", "target")


def table(figures: Figures) -> str:
    """Return the figures in Markdown, as medians over the rounds."""
    rows = [HEAD, ("---", "---:", "---:")]
    for part in (_overhead, _first, _workers, _requests):
        rows += part(figures)
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


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
        text = f"{served:.1f} s, {served / alone:.2f} × library"
        rows.append((f"POST to first accepted pair, warm, {figures.threads} threads", text, ""))
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
        (f"GET /jobs/{{id}}, {besides}, {_asked(each.load)}", _as_text(each), TARGET if each.load.wanted else "")
        for besides, answered in figures.requests.items()
        for each in answered
    ]


def _asked(load: Load) -> str:
    return f"target {load.wanted:g}/s" if load.wanted else f"no limit, {load.connections} connections"


def _as_text(answered: Answered) -> str:
    load = answered.load
    wrong = f", {load.wrong} refused" if load.wrong else ""
    times = f"p50 {load.p50_ms:.1f} ms, p99 {load.p99_ms:.1f} ms"
    cost = f"API {answered.api_ms:.2f} ms of a core each, generator {load.core_share:.2f} cores"
    return f"{load.rate:.0f}/s, {times}{wrong} ({cost})"


def _ratios(ours: Sequence[Made], theirs: Sequence[Made], of: Callable[[Made], float]) -> list[float]:
    return [of(our) / of(their) for our, their in zip(ours, theirs, strict=True)]
