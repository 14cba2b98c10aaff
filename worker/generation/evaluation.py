"""Measures pairs: detectors are trained with and without them, and tested on held-out photographs."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from model.evaluation.data import DefectSplit, assemble_data
from model.evaluation.metrics import require_metrics
from model.evaluation.profiles import Profile
from model.evaluation.rows import REAL, Row, Source
from model.evaluation.run import EvaluationRequest, assemble
from model.evaluation.segmentation import TRAINING, prepare_example
from model.evaluation.sources import MadePairs
from model.evaluation.trial import Trial
from model.generation.counts import Counts
from model.generation.request import GenerationRequest
from model.masks.networks import MaskNetworks
from model.runtime.progress import Meter, Progress
from model.types import Candidate
from service.core.errors import UsageError
from worker.attempt.inputs import Inputs

STAGE = "evaluate"
"""Name of this part of a job's progress."""

GENERATED = "generated"
ROWS = (REAL, f"{REAL}+{GENERATED}")
SOURCES = {GENERATED: Source("the generated pairs", "")}

LAYOUT = "uploaded"

TOGETHER = (
    "the defect types are measured together, as one defect, because the held-out photographs do not name theirs: "
    "upload held_out_images[TYPE] of each type for numbers by type"
)
"""Said of adapters of several types."""

VERDICT_FACTS = ("metric", "change", "spread", "helps", "seeds", "sentence", "by_type", "accuracy")
"""Those of a verdict that has them."""


@dataclass(frozen=True, slots=True)
class MeasuredRow:
    """A row with one seed, and the file of its numbers."""

    trial: Trial
    row: Row

    @property
    def seed(self) -> int:
        return self.trial.studio.seed

    @property
    def name(self) -> str:
        """Return its name among all rows and seeds."""
        return f"{self.seed}/{self.row.name}"

    @property
    def path(self) -> Path:
        return self.trial.path(self.row)


def prepare_evaluation(
    request: GenerationRequest,
    networks: MaskNetworks,
    accepted: Iterable[Candidate],
    training: Inputs,
    held_out: Inputs,
    profile: Profile,
) -> EvaluationRequest:
    """Put together what is compared, on what.

    Args:
        request: of the pairs.
        networks: of the adapter's base.
        accepted: the pairs; iterated once, and held in memory no larger than the detectors see them.
        training: what the adapter was trained on.
        held_out: what the detectors are tested on.
        profile: with the seeds that were asked for.

    Raises:
        UsageError: metrics are not installed, nothing is held out, or a photograph trains and tests.
    """
    require_metrics()
    if not held_out.pairs:
        raise UsageError("the adapter has no held-out pairs")
    card = request.adapter.card
    only = str(card["defect"])
    apart = any(held_out.defects)
    splits = _split_by_type(training, held_out, only) if apart else {only: DefectSplit(training.pairs, held_out.pairs)}
    notes = [] if apart or len(set(training.defects)) < 2 else [TOGETHER]
    data = assemble_data(str(card["object"]), LAYOUT, splits, (training.normals, held_out.normals), notes)
    pairs: dict[str, list[Candidate]] = {kind: [] for kind in splits}
    for candidate in accepted:
        pairs[(candidate.defect or only) if apart else only].append(_as_seen(candidate, profile))
    made = {kind: MadePairs(each, Counts().as_dict(), {}) for kind, each in pairs.items()}
    profile = replace(profile, rows=ROWS)
    return EvaluationRequest(data, profile, request.adapter.base, networks, data.name, SOURCES, {GENERATED: made})


def _split_by_type(training: Inputs, held_out: Inputs, only: str) -> dict[str, DefectSplit]:
    """Divide pairs by type; each type is trained on and held out.

    Args:
        only: the type of pairs that name none.
    """
    tested = {kind.name: list(kind.pairs) for kind in held_out.types(only)}
    return {kind.name: DefectSplit(list(kind.pairs), tested[kind.name]) for kind in training.types(only)}


def rows_of(evaluation: EvaluationRequest, work: Path) -> list[MeasuredRow]:
    """List all rows in the order in which they are measured."""
    trials = [evaluation.trial(seed, work) for seed in evaluation.profile.seeds]
    return [MeasuredRow(trial, row) for trial in trials for row in evaluation.rows]


def evaluate_pairs(
    evaluation: EvaluationRequest,
    work: Path,
    progress: Callable[[Progress], None],
    keep: Callable[[MeasuredRow], None],
) -> dict[str, Any]:
    """Measure the rows whose numbers are not in the work folder yet, and sum all of them up.

    Args:
        progress: called several times per row; an error that it raises ends the work.
        keep: called with every row that was measured.

    Returns:
        JSON: profile, seeds, number of held-out photographs, digest and notes of all photographs, mean and standard
        deviation of each row's metrics, their means by defect type where there are several, and the verdict. Nothing
        in it depends on machine or time.

    Raises:
        UsageError: a row cannot be measured.
    """
    rows = rows_of(evaluation, work)
    done = sum(each.path.is_file() for each in rows)
    meter = Meter(STAGE, len(rows), "rows", resumed=done)
    progress(meter.report(done))
    for each in rows:
        is_new = not each.path.is_file()
        for share in _shares(each.trial.run(each.row), evaluation.profile.detectors):
            progress(meter.report(done, share=share))
        numbers = json.loads(each.path.read_text(encoding="utf-8"))
        if "skipped" in numbers:
            raise UsageError(numbers["skipped"])
        if is_new:
            keep(each)
            done += 1
        progress(meter.report(done))
    return _summed(evaluation, assemble(evaluation, work))


def _shares(row: Iterable[Progress], detectors: int) -> Iterator[float]:
    """Yield, at every report of a row, which share of its detectors' training is done."""
    trained, share = 0, 0.0
    for report in row:
        if report.stage == TRAINING:
            share = (trained + report.completed / report.total) / detectors
            trained += report.completed == report.total
        yield share


def not_measured(profile: Profile, detail: str) -> dict[str, Any]:
    """Describe an evaluation without numbers, as `evaluate_pairs` does one with them."""
    return {
        "profile": profile.name,
        "seeds": list(profile.seeds),
        "verdict": {"status": "not_measured", "detail": detail},
    }


def _as_seen(candidate: Candidate, profile: Profile) -> Candidate:
    """Shrink a pair to what a detector sees of it; preparing it again changes nothing."""
    seen = prepare_example(candidate.image, candidate.mask, profile)
    return replace(candidate, image=seen.image, mask=seen.mask, part=None)


def _summed(evaluation: EvaluationRequest, result: dict[str, Any]) -> dict[str, Any]:
    data, found = evaluation.data, result["verdict"]
    if found is None:
        raise UsageError("the held-out photographs allow no comparison")
    several = len(data.defects) > 1
    shown = ("row", "mean", "sd", "by_type") if several else ("row", "mean", "sd")
    rows = [{**row, "by_type": _by_type(row)} for row in result["rows"]]
    limits = [*([TOGETHER] if TOGETHER in data.notes else []), *([found["note"]] if "note" in found else [])]
    note = {"note": "; ".join(limits)} if limits else {}
    return {
        "profile": evaluation.profile.name,
        "seeds": list(evaluation.profile.seeds),
        "held_out": {
            "pairs": sum(len(split.test) for split in data.defects.values()),
            "normals": len(data.normals_test),
        },
        "photographs_sha256": data.digest,
        "notes": data.notes,
        "rows": [{name: row[name] for name in shown} for row in rows],
        "verdict": {"status": "measured", **{name: found[name] for name in VERDICT_FACTS if name in found}, **note},
    }


def _by_type(row: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    """Return the means over the seeds of each defect type's metrics; of some there may be none."""
    first, seeds = row["seeds"][0]["by_type"], row["seeds"]
    return {
        kind: {name: _mean([each["by_type"][kind][name] for each in seeds]) for name in metrics}
        for kind, metrics in first.items()
    }


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.mean(known) if known else None
