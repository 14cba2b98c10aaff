"""Writes measurements of the model as Markdown and JSON, after every row, so that an interrupted run keeps them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from bench.hardware import Peak, clocked
from service.core.strict_json import to_json

PAIRS = 500
"""Pairs of a dataset whose price is reported; the papers generate as many per defect."""

GIB = 2**30


@dataclass(slots=True)
class Row:
    """Measurements of one form.

    Attributes:
        name: how the form differs from others.
        precision: "fp32" or "bf16", which determines the peak that its share refers to.
        against: name of the row that its speed is divided by.
        seconds: seconds per pair, or per training step; one entry per round.
        processor: processor seconds per pair or step, where a CPU does the work; one entry per round.
        pass_seconds: seconds of one pass through the U-Net; one entry per round.
        pass_rows: rows of that pass: branches × pairs × 2 with guidance.
        operations: operations of that pass, or of a training step.
        memory: peak of used bytes.
    """

    name: str
    precision: str
    against: str = ""
    seconds: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    pass_seconds: list[float] = field(default_factory=list)
    pass_rows: int = 0
    operations: int = 0
    memory: int = 0

    @property
    def per_unit(self) -> float:
        """Return the median seconds per pair or step."""
        return median(self.seconds)

    def took(self, device: str, work: Callable[[], Any], units: int = 1) -> None:
        """Measure a round's work on so many pairs."""
        before = time.process_time()
        self.seconds.append(clocked(device, work) / units)
        if device == "cpu":
            self.processor.append((time.process_time() - before) / units)


@dataclass(frozen=True, slots=True)
class Agreement:
    """A measured difference, and its limit; None without a limit."""

    what: str
    seen: float
    allowed: float | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """Pairs made with default settings, checked and stored.

    Attributes:
        in_turn: seconds without overlap.
        overlapped: seconds with overlap, as the library does it.
        stages: name → seconds, without overlap.
    """

    pairs: int
    in_turn: float
    overlapped: float
    stages: dict[str, float]


@dataclass(slots=True)
class Results:
    """All measurements of one size on one device.

    Attributes:
        settings: settings of the measurements, for the reader.
        price: price of the machine, US dollars per hour.
        sampling, training: rows in the order of their tables.
        agreements: differences between the reference form and ours.
        job: a job with default settings, by its stages.
    """

    size: str
    device: str
    settings: dict[str, str]
    price: float
    peak: Peak
    sampling: list[Row] = field(default_factory=list)
    training: list[Row] = field(default_factory=list)
    agreements: list[Agreement] = field(default_factory=list)
    job: Job | None = None

    def row(self, rows: list[Row], name: str, precision: str, against: str = "") -> Row:
        """Return the row of this name; add it to `rows` if it is new."""
        for each in rows:
            if each.name == name:
                return each
        rows.append(Row(name, precision, against))
        return rows[-1]


def write_results(results: Results, machine: str, folder: Path) -> str:
    """Write `model-SIZE.md` and `.json`; returns the Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    text = markdown(results, machine)
    facts = {"machine": machine, **asdict(results)}
    for ending, content in (("md", text), ("json", to_json(facts, indent=1))):
        (folder / f"model-{results.size}.{ending}").write_text(content, encoding="utf-8")
    return text


def markdown(results: Results, machine: str) -> str:
    """Return the tables of the measurements so far."""
    peak = results.peak
    settings = "; ".join(f"{name} {value}" for name, value in results.settings.items())
    rates = f"Measured peak: {_rate(peak.fp32)} in fp32, {_rate(peak.bf16)} in bf16."
    parts = [
        f"Size `{results.size}` on {machine}. {settings}.",
        f"{rates} The machine is assumed to cost ${results.price:g} per hour.",
    ]
    if results.sampling:
        parts.append(_sampling_table(results))
    if results.job is not None:
        parts.append(_job_table(results.job))
    if results.training:
        parts.append(_training_table(results))
    if results.agreements:
        parts.append(_agreement_table(results.agreements))
    return "\n\n".join(parts) + "\n"


def _sampling_table(results: Results) -> str:
    head = (
        "sampling",
        "s per pair",
        "pairs/s",
        _times(results),
        "a pass",
        "per row",
        "of peak",
        "memory",
        f"{PAIRS} pairs",
    )
    body = [
        (
            row.name,
            _seconds(row.per_unit),
            f"{1 / row.per_unit:.3g}",
            _ratio(row, results.sampling),
            f"{_milliseconds(row)} of {row.pass_rows} rows" if row.pass_seconds else "",
            f"{_digits(1e3 * median(row.pass_seconds) / row.pass_rows)} ms" if row.pass_seconds else "",
            _share(row, results.peak, median(row.pass_seconds)) if row.pass_seconds else "",
            _memory(row),
            f"${PAIRS * row.per_unit * results.price / 3600:.2f}",
        )
        for row in results.sampling
    ]
    return grid([head, *body])


def _training_table(results: Results) -> str:
    head = ("training", "s per step", _times(results), "of peak", "memory")
    body = [
        (
            row.name,
            _seconds(row.per_unit),
            _ratio(row, results.training),
            _share(row, results.peak, row.per_unit),
            _memory(row),
        )
        for row in results.training
    ]
    return grid([head, *body])


def _job_table(job: Job) -> str:
    stages = sorted(job.stages.items(), key=lambda stage: -stage[1])
    stages.append(("everything else", job.in_turn - sum(job.stages.values())))
    rows = [(name, _seconds(value), f"{100 * value / job.in_turn:.1f} %") for name, value in stages]
    rows.append(("overlapped", _seconds(job.overlapped), f"{100 * job.overlapped / job.in_turn:.0f} %"))
    return grid([(f"a job of {job.pairs} pairs, in turn", _seconds(job.in_turn), "share"), *rows])


def _agreement_table(agreements: Sequence[Agreement]) -> str:
    rows = [(each.what, f"{each.seen:.3g}", "" if each.allowed is None else f"{each.allowed:g}") for each in agreements]
    return grid([("difference from the reference form", "seen", "allowed"), *rows])


def grid(rows: Sequence[Sequence[str]]) -> str:
    """Format a Markdown table: a head, then rows; numbers are right-aligned."""
    line = ["---", *["---:"] * (len(rows[0]) - 1)]
    return "\n".join(_line(row) for row in (rows[0], line, *rows[1:]))


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _times(results: Results) -> str:
    return "×, processor time" if results.device == "cpu" else "×"


def _ratio(row: Row, rows: Sequence[Row]) -> str:
    """Compare rounds with each other, since load changes between them: the median ratio, and the range of several.

    Processor time, where there is one, hardly depends on what else the machine does.
    """
    over = next((other for other in rows if other.name == row.against), None)
    theirs, ours = (each.processor or each.seconds if each else [] for each in (over, row))
    ratios = [one / other for one, other in zip(theirs, ours, strict=False)]
    if not ratios:
        return ""
    middle = f"{median(ratios):.2f}"
    return f"{middle} ({min(ratios):.2f} to {max(ratios):.2f})" if len(ratios) > 1 else middle


def _share(row: Row, peak: Peak, seconds: float) -> str:
    if not row.operations:
        return ""
    return f"{100 * row.operations / seconds / (peak.bf16 if row.precision == 'bf16' else peak.fp32):.0f} %"


def _milliseconds(row: Row) -> str:
    return f"{_digits(1e3 * median(row.pass_seconds))} ms"


def _memory(row: Row) -> str:
    return f"{row.memory / GIB:.2f} GiB" if row.memory else ""


def _seconds(value: float) -> str:
    return f"{_digits(value)} s"


def _digits(value: float) -> str:
    """Format with three significant digits, without an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _rate(value: float) -> str:
    return f"{value / 1e12:.3g} TFLOP/s"
