"""Runs an evaluation: makes pairs, trains a detector per row and seed, and tests it on held-out photographs.

Everything is kept in a work folder, step by step, so that the same request goes on where it was interrupted:

    request.json                    what decides the numbers of all rows
    seed-0/adapters, seed-0/pairs   see `model.evaluation.sources`
    seed-0/rows/<row>.json          one row's numbers with this seed, and what only they depend on
    pictures/                       for the report
"""

from __future__ import annotations

import json
import math
import os
import platform
import shutil
import statistics
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from scipy import stats

from model.diffusion.base import Base
from model.evaluation.data import EvaluationData
from model.evaluation.pictures import Shown, write_pictures
from model.evaluation.profiles import Profile
from model.evaluation.published import MISSING, PublishedWeights
from model.evaluation.rows import REAL, REAL_AND, SOURCES, Row, Source, parse_rows
from model.evaluation.sources import Studio
from model.evaluation.trial import PairsByType, Trial
from model.masks.networks import MaskNetworks
from model.runtime.progress import Meter, Progress
from service.core.atomic_write import write_text
from service.core.errors import UsageError
from service.core.strict_json import to_json

VERSION = 1
"""Of the result's shape."""

PROTOCOL = 2
"""Of how rows are measured; numbers of another protocol are not mixed with these."""

REQUEST_FILE = "request.json"
PICTURES_FOLDER = "pictures"

VERDICT_METRIC, VERDICT_TITLE = "pixel_ap", "pixel AP"

SAME_PAIRS = "repetitions differ in the detectors only: all of them train on the same generated pairs"
"""What ± does not cover where pairs were given."""

ABOUT_A_ROW = ("made_of", "command")
"""What the file of a row's numbers holds beside them."""

_Twins = tuple[Mapping[str, Any], Mapping[str, Any]]
"""Numbers of one seed without the pairs, and with them."""

_Metric = Callable[[Mapping[str, Any]], Any]
"""Takes one number of them, None where it could not be measured."""


@dataclass(frozen=True, slots=True)
class EvaluationRequest:
    """What to compare, on what.

    Attributes:
        object_name: what the photographs show, for methods that use the word.
        sources: by the names that the profile's rows use.
        given: pairs that exist already: source → defect type → pairs; their sources name no method.
        command: what makes the same numbers again, for the report.
        published: networks of the published measures of pictures; None leaves those out.
        notes: sentences about the comparison, for the result.
    """

    data: EvaluationData
    profile: Profile
    base: Base
    networks: MaskNetworks
    object_name: str = "product"
    sources: Mapping[str, Source] = field(default_factory=lambda: SOURCES)
    given: Mapping[str, PairsByType] = field(default_factory=dict)
    command: str = ""
    published: PublishedWeights | None = None
    notes: Sequence[str] = ()

    @property
    def rows(self) -> list[Row]:
        """Return the rows in order."""
        return parse_rows(self.profile.rows, self.sources)

    def trial(self, seed: int, work: Path) -> Trial:
        """Return one repetition."""
        studio = Studio(self.base, self.networks, work / f"seed-{seed}", self.profile, seed)
        return Trial(self.data, self.object_name, self.sources, self.given, studio, self.published, self.command)

    def identity(self) -> dict[str, Any]:
        """Return what decides the numbers of all rows, as JSON; rows, sources and seeds may be added later.

        What else decides the numbers of one row is in their file, see `Trial.made_of`.
        """
        profile = self.profile.as_dict()
        del profile["rows"], profile["seeds"]
        facts = {"data": self.data.digest, "base": self.base.digest, "object": self.object_name}
        weights = {"weights": self.published.hashes} if self.published is not None else {}
        program = {"program": version("pairforge"), "protocol": PROTOCOL}
        return {**facts, **program, "profile": profile, **weights}


def evaluate(
    request: EvaluationRequest, work: Path, *, force: bool = False
) -> Generator[Progress | dict[str, Any], None, None]:
    """Fill the work folder, yielding progress and, after every seed, the result so far; the last one is complete.

    Args:
        work: folder for adapters, pairs and numbers; what it holds of the same request is used.
        force: whether to delete what it holds of another request, and numbers of these rows from other pairs.

    Raises:
        UsageError: the folder holds another request, numbers of these rows from other pairs, or other files; names
            what differs.
    """
    _begin(request, work, force=force)
    rows, seeds = request.rows, request.profile.seeds
    done = sum(request.trial(seed, work).is_measured(row) for seed in seeds for row in rows)
    meter = Meter("rows", len(rows) * len(seeds), "rows", resumed=done)
    yield meter.report(done)
    for turn, seed in enumerate(seeds):
        trial = request.trial(seed, work)
        for row in rows:
            if not trial.is_measured(row):
                yield from trial.run(row)
                done += 1
                yield meter.report(done, note=f"{row.name}, seed {seed}")
        if turn == 0:
            yield from _draw_pictures(trial, rows, work)
        yield assemble(request, work)


def assemble(request: EvaluationRequest, work: Path) -> dict[str, Any]:
    """Put together what the work folder holds of a request, as JSON; rows and seeds not measured yet are left out."""
    rows = []
    for row in request.rows:
        files = [request.trial(seed, work).path(row) for seed in request.profile.seeds]
        seeds = [json.loads(path.read_text(encoding="utf-8")) for path in files if path.is_file()]
        if seeds:
            rows.append(_summed(row, seeds, request))
    pictures = work / PICTURES_FOLDER / "pictures.json"
    defects = request.data.defects.items()
    weights = {"weights": request.published.as_dict()} if request.published is not None else {}
    return {
        "version": VERSION,
        "program": version("pairforge"),
        "command": request.command,
        "machine": _machine(request.base.device),
        "data": {
            "name": request.data.name,
            "layout": request.data.layout,
            "types": {defect: {"train": len(split.train), "test": len(split.test)} for defect, split in defects},
            "normals": {"train": len(request.data.normals_train), "test": len(request.data.normals_test)},
            "digest": request.data.digest,
            "notes": request.data.notes,
        },
        "base": {"name": request.base.name, "hash": request.base.digest},
        **weights,
        "profile": request.profile.as_dict(),
        "rows": rows,
        "notes": [*request.notes, *_unmeasured(request, rows)],
        "verdict": _noted(verdict(rows), rows, request),
        "pictures": json.loads(pictures.read_text(encoding="utf-8")) if pictures.is_file() else [],
    }


def verdict(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Say what the last row with real and generated pairs changes against real pairs alone; None without both.

    Both rows are compared seed by seed. The pairs help or harm where the mean change is larger than chance would make
    it in one of twenty evaluations without any effect (two-sided t-test of the changes). Seeds share the photographs,
    so this says nothing about others.
    """
    measured = {row["row"]: row for row in rows if row["seeds"]}
    added = [name for name in measured if name.startswith(f"{REAL}+")]
    if REAL not in measured or not added:
        return None
    row = measured[added[-1]]
    before = {each["seed"]: each for each in measured[REAL]["seeds"]}
    twins = [(before[each["seed"]], each) for each in row["seeds"] if each["seed"] in before]
    if not twins:
        return None
    change, spread = _changed(twins, lambda numbers: numbers["metrics"][VERDICT_METRIC])
    by_chance = _by_chance(spread, len(twins)) if spread is not None else None
    helps = change > 0 if by_chance is not None and abs(change) > by_chance else None
    which = f" ({row['title'].removeprefix(REAL_AND)})" if len(added) > 1 and "title" in row else ""
    return {
        "metric": VERDICT_METRIC,
        "row": row["row"],
        "against": REAL,
        "seeds": len(twins),
        "change": change,
        "spread": spread,
        "by_chance": by_chance,
        "helps": helps,
        "sentence": _sentence(which, change, spread, helps=helps),
        **_told_by_type(twins),
    }


def _noted(
    found: dict[str, Any] | None, rows: Sequence[Mapping[str, Any]], request: EvaluationRequest
) -> dict[str, Any] | None:
    """Add to a verdict the `note` on what limits it, if anything does."""
    if found is None:
        return None
    row = next(row for row in request.rows if row.name == found["row"])
    notes = next(each["notes"] for each in rows if each["row"] == row.name)
    notes = [*request.data.same_parts, *notes, *([SAME_PAIRS] if row.source in request.given else [])]
    return found | ({"note": "; ".join(notes)} if notes else {})


def _unmeasured(request: EvaluationRequest, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say which measures of pictures were left out, if pictures were measured and no weights were named."""
    seen = any("fidelity" in seed for row in rows for seed in row["seeds"])
    return [f"Inception Score, FID and IC-LPIPS: {MISSING}"] if seen and request.published is None else []


def _told_by_type(twins: Sequence[_Twins]) -> dict[str, Any]:
    """Say what changed for each defect type, and in telling the types apart; nothing of one type alone."""
    types = list(twins[0][0].get("by_type", {}))
    if len(types) < 2:
        return {}

    def told(metric: _Metric) -> dict[str, float | None] | None:
        known = [pair for pair in twins if None not in map(metric, pair)]
        return dict(zip(("change", "spread"), _changed(known, metric), strict=True)) if known else None

    def of_type(kind: str) -> _Metric:
        return lambda numbers: numbers["by_type"][kind][VERDICT_METRIC]

    by_type = {kind: told(of_type(kind)) for kind in types}
    return {"by_type": by_type, "accuracy": told(lambda numbers: numbers["metrics"].get("accuracy"))}


def _changed(twins: Sequence[_Twins], metric: _Metric) -> tuple[float, float | None]:
    """Return mean and standard deviation of a metric's changes; no deviation of one alone."""
    changes = [metric(after) - metric(before) for before, after in twins]
    return statistics.mean(changes), statistics.stdev(changes) if len(changes) > 1 else None


def _by_chance(spread: float, seeds: int) -> float:
    """Return what mean changes of this standard deviation stay below in 95 of 100 cases, if there is no effect."""
    return float(stats.t.ppf(0.975, seeds - 1)) * spread / math.sqrt(seeds)


def _sentence(which: str, change: float, spread: float | None, *, helps: bool | None) -> str:
    points = f"{100 * change:+.1f}".replace("-", "−") + (f" ± {100 * spread:.1f}" if spread is not None else "")
    said = f"Adding these pairs{which} changed {VERDICT_TITLE} by {points} points on your held-out photographs"
    if spread is None:
        return f"{said}; one seed tells nothing about chance."
    if helps is None:
        return f"{said}: that may be chance."
    return f"{said}: {'they help' if helps else 'they harm'}."


def _summed(row: Row, seeds: Sequence[Mapping[str, Any]], request: EvaluationRequest) -> dict[str, Any]:
    measured = [each for each in seeds if "metrics" in each]
    values: dict[str, list[float]] = {}
    for each in measured:
        for name, value in each["metrics"].items():
            if value is not None:
                values.setdefault(name, []).append(value)
    summed = {
        "row": row.name,
        "title": row.title(request.sources),
        "seeds": [{name: value for name, value in each.items() if name not in ABOUT_A_ROW} for each in measured],
        "mean": {name: statistics.mean(found) for name, found in values.items()},
        "sd": {name: statistics.stdev(found) for name, found in values.items() if len(found) > 1},
        "notes": _without_pairs(measured),
    }
    commands = sorted({each.get("command", request.command) for each in measured})
    if commands and commands != [request.command]:
        summed["commands"] = commands
    skipped = [each["skipped"] for each in seeds if "skipped" in each]
    return summed | ({"skipped": skipped[0]} if skipped else {})


def _without_pairs(seeds: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say of which defect types a row had no pairs, so that its detectors saw none generated of them."""
    found: dict[str, list[int]] = {}
    for each in seeds:
        for defect in each.get("without_pairs", []):
            found.setdefault(defect, []).append(each["seed"])
    always = [defect for defect, numbers in found.items() if len(numbers) == len(seeds)]
    notes = [f"no accepted pairs of: {', '.join(always)}"] if always else []
    return notes + [
        f"no accepted pairs of: {defect}, with seed {', '.join(map(str, numbers))}"
        for defect, numbers in found.items()
        if defect not in always
    ]


def _begin(request: EvaluationRequest, work: Path, *, force: bool) -> None:
    """Check that the work folder is new or of the same request."""
    path, now = work / REQUEST_FILE, json.loads(to_json(request.identity()))
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        differing = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
        if differing and not force:
            raise UsageError(
                f"{work} holds another evaluation ({', '.join(differing)} differ): use the same options to go on with "
                "it, --force to start over, or choose another --out"
            )
        if differing:
            shutil.rmtree(work)
        else:
            _replace_foreign(request, work, force=force)
    elif work.is_dir() and any(work.iterdir()):
        raise UsageError(f"{work} contains other files: choose another --out")
    work.mkdir(parents=True, exist_ok=True)
    write_text(path, to_json(now))


def _replace_foreign(request: EvaluationRequest, work: Path, *, force: bool) -> None:
    """Refuse numbers of the rows that are of other pairs, or delete them."""
    trials = [request.trial(seed, work) for seed in request.profile.seeds]
    foreign = [(trial, row) for trial in trials for row in request.rows if trial.is_foreign(row)]
    if foreign and not force:
        names = ", ".join(dict.fromkeys(row.name for _, row in foreign))
        raise UsageError(
            f"{work} holds numbers of {names} from other pairs: --force replaces them and leaves the other rows, or "
            "choose another --out"
        )
    for trial, row in foreign:
        trial.forget(row)


def _draw_pictures(trial: Trial, rows: Sequence[Row], work: Path) -> Generator[Progress, None, None]:
    """Draw some pairs of every source for the report."""
    shown: dict[str, dict[str, Shown]] = {}
    for row in sorted(rows, key=lambda row: row.real):
        if row.source and row.source not in shown and "skipped" not in trial.numbers(row):
            made = yield from trial.made(row.source)
            shown[row.source] = {defect: Shown(one, trial.nearest(row, defect, one)) for defect, one in made.items()}
    write_pictures(trial.data, shown, trial.studio.seed, work / PICTURES_FOLDER)


def _machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()}, {os.cpu_count()} cores"
