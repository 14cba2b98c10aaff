"""What was measured of the model, as Markdown and JSON; written after every row, so that a run cut short keeps it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from bench.hardware import Peak

PAIRS = 500
"""Of a dataset whose price is told; the papers generate as many per defect."""

GIB = 2**30


@dataclass(slots=True)
class Row:
    """One form of the work.

    Attributes:
        name: what is special about it.
        precision: "fp32" or "bf16", which decides what peak its share is of.
        against: name of the row that its speed is divided by.
        seconds: per pair, or per training step; one entry per round.
        pass_seconds: of one pass through the U-Net; one entry per round.
        pass_rows: rows of that pass: branches × pairs × 2 with guidance.
        operations: of that pass, or of a training step.
        memory: bytes at most, while it worked.
    """

    name: str
    precision: str
    against: str = ""
    seconds: list[float] = field(default_factory=list)
    pass_seconds: list[float] = field(default_factory=list)
    pass_rows: int = 0
    operations: int = 0
    memory: int = 0

    @property
    def per_unit(self) -> float:
        """Median seconds per pair or step."""
        return median(self.seconds)


@dataclass(frozen=True, slots=True)
class Agreement:
    """A difference that was seen, and what it must not exceed; None where there is nothing to hold it to."""

    what: str
    seen: float
    allowed: float | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """Pairs made with default settings, checked and stored.

    Attributes:
        in_turn: seconds, one thing after the other.
        overlapped: seconds, as the library does it.
        stages: name → seconds, in turn.
    """

    pairs: int
    in_turn: float
    overlapped: float
    stages: dict[str, float]


@dataclass(slots=True)
class Results:
    """All that was measured of one size on one device.

    Attributes:
        settings: what decided what was measured, for the reader.
        price: of the machine, US dollars per hour.
        sampling, training: in the order of their tables.
        agreements: between the reference form and ours.
        job: with default settings, by its stages.
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
        """The row of a name, added to `rows` if it is new."""
        for each in rows:
            if each.name == name:
                return each
        rows.append(Row(name, precision, against))
        return rows[-1]


def write_results(results: Results, machine: str, folder: Path) -> str:
    """Write `model-SIZE.md` and `.json`; returns the Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    text = markdown(results, machine)
    told = {"machine": machine, **asdict(results)}
    for ending, content in (("md", text), ("json", json.dumps(told, indent=1))):
        (folder / f"model-{results.size}.{ending}").write_text(content, encoding="utf-8")
    return text


def markdown(results: Results, machine: str) -> str:
    """The tables of what has been measured so far."""
    peak = results.peak
    settings = "; ".join(f"{name} {value}" for name, value in results.settings.items())
    rates = f"Measured peak: {_rate(peak.fp32)} in fp32, {_rate(peak.bf16)} in bf16."
    parts = [
        f"Size `{results.size}` on {machine}. {settings}.",
        f"{rates} The machine is taken to cost ${results.price:g} per hour.",
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
    head = ("sampling", "s per pair", "pairs/s", "×", "a pass", "per row", "of peak", "memory", f"{PAIRS} pairs")
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
    head = ("training", "s per step", "×", "of peak", "memory")
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
    told = sorted(job.stages.items(), key=lambda stage: -stage[1])
    told.append(("all else", job.in_turn - sum(job.stages.values())))
    rows = [(name, _seconds(value), f"{100 * value / job.in_turn:.1f} %") for name, value in told]
    rows.append(("overlapped", _seconds(job.overlapped), f"{100 * job.overlapped / job.in_turn:.0f} %"))
    return grid([(f"a job of {job.pairs} pairs, in turn", _seconds(job.in_turn), "share"), *rows])


def _agreement_table(agreements: Sequence[Agreement]) -> str:
    rows = [(each.what, f"{each.seen:.3g}", "" if each.allowed is None else f"{each.allowed:g}") for each in agreements]
    return grid([("difference from the reference form", "seen", "allowed"), *rows])


def grid(rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown: a head, then rows; numbers stand on the right."""
    line = ["---", *["---:"] * (len(rows[0]) - 1)]
    return "\n".join(_line(row) for row in (rows[0], line, *rows[1:]))


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _ratio(row: Row, rows: Sequence[Row]) -> str:
    over = next((other for other in rows if other.name == row.against and other.seconds), None)
    return f"{over.per_unit / row.per_unit:.2f}" if over is not None else ""


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
    """Three of them, without an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _rate(value: float) -> str:
    return f"{value / 1e12:.3g} TFLOP/s"
