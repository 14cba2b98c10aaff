"""Prints the tables of docs/evaluation.md: `python -m bench.evaluation_tables cookie/result.json tiles/result.json`.

Every file is what `pairforge evaluate` wrote. The first table has one column per set, and the mean over all defect
types; then each set has its own tables. Rows with fewer seeds than others are told apart: their means are less certain.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

METRICS = {
    "pixel_ap": "pixel AP",
    "pixel_auroc": "pixel AUROC",
    "pixel_f1": "pixel F1-max",
    "pro": "PRO",
    "image_auroc": "image AUROC",
    "image_ap": "image AP",
    "image_f1": "image F1-max",
    "accuracy": "accuracy of types",
}
HEADLINE = "pixel_ap"

Result = Mapping[str, Any]


def main(paths: Sequence[str]) -> None:
    """Print all tables of the results in these files."""
    results = [json.loads(Path(path).read_text(encoding="utf-8")) for path in paths]
    texts = [_overview(results)]
    for result in results:
        heading = [f"### {result['data']['name']}", f"`{result['command']}`"]
        texts += [*heading, *_seeds_that_differ(result, _most_seeds([result])), _metrics(result), _pictures(result)]
    sys.stdout.write("\n\n".join(texts) + "\n")


def _overview(results: Sequence[Result]) -> str:
    """Compare the rows on all sets, in percent of pixel AP."""
    titles = {row["row"]: row["title"] for result in results for row in result["rows"]}
    most = _most_seeds(results)
    fewer = [(result["data"]["name"], _seeds_that_differ(result, most)) for result in results]
    marked = [f"{name}{' *' if notes else ''}" for name, notes in fewer]
    lines = []
    for name, title in titles.items():
        found = [_row(result, name) for result in results]
        cells = [_spread(_values(row, HEADLINE)) for row in found]
        types = [value for row in found for value in _by_type(row, HEADLINE)]
        complete = all(row is not None and row["seeds"] for row in found)
        lines.append([title, *cells, f"{100 * statistics.mean(types):.1f}" if types and complete else "–"])
    table = _table(
        ["pixel AP, %", *[f"{name}, all types" for name in marked], "mean of all types, each by itself"], lines
    )
    notes = [f"\\* {name}: {note}" for name, notes in fewer for note in notes]
    return "\n\n".join([table, *notes])


def _most_seeds(results: Iterable[Result]) -> int:
    return max((len(row["seeds"]) for result in results for row in result["rows"]), default=0)


def _seeds_that_differ(result: Result, most: int) -> list[str]:
    """Return a sentence that tells the number of seeds of each row, if any measured row has fewer than the most."""
    counts: dict[int, list[str]] = {}
    for row in result["rows"]:
        if row["seeds"]:
            counts.setdefault(len(row["seeds"]), []).append(row["title"])
    if not any(count < most for count in counts):
        return []
    if len(counts) == 1:
        return [f"all rows have {next(iter(counts))} of {most} seeds"]
    told = [f"{count} ({', '.join(titles)})" for count, titles in sorted(counts.items())]
    return [f"rows differ in their number of seeds: {', '.join(told)}"]


def _metrics(result: Result) -> str:
    """Show every metric of one set in percent, mean ± sd over the seeds, and pixel AP by defect type."""
    used = [name for name in METRICS if any(name in row["mean"] for row in result["rows"])]
    types = list(result["data"]["types"]) if len(result["data"]["types"]) > 1 else []
    lines = []
    for row in result["rows"]:
        if not row["seeds"]:
            lines.append([row["title"], f"not measured: {row['skipped']}", *[""] * (len(used) + len(types))])
            continue
        seeds = str(len(row["seeds"]))
        cells = [_spread(_values(row, name)) for name in used]
        own = [_spread([100 * value for value in _of_type(row, kind, HEADLINE)]) for kind in types]
        lines.append([row["title"], seeds, *cells, *own])
    return _table(["trained on", "seeds", *[METRICS[name] for name in used], *[f"{kind}: AP" for kind in types]], lines)


def _pictures(result: Result) -> str:
    """Show acceptance, likeness, diversity and cost of every source, over all types and seeds."""
    lines = []
    for row in result["rows"]:
        runs = [each for each in row["seeds"] if each.get("fidelity")]
        if not runs:
            continue
        counts = [count for each in runs for count in each["counts"].values()]
        made, attempts = (sum(count[key] for count in counts) for key in ("accepted", "attempts"))
        passed = sum(count.get("would_pass", count["accepted"]) for count in counts)
        quality = [each for run in runs for each in run["fidelity"].values()]
        train, generate = (sum(run["seconds"].get(stage, 0.0) for run in runs) for stage in ("train", "generate"))
        lines.append(
            [
                row["title"],
                str(made),
                f"{100 * passed / attempts:.0f} %" if attempts else "–",
                *(_mean(quality, key) for key in ("nearest_real", "nearest_among_reals", "diversity", "kid")),
                _mean(quality, "psnr_outside", digits=1),
                _mean(quality, "sharpness", digits=2),
                f"{train / len(counts):.0f}",
                f"{generate / attempts:.2f}" if attempts else "–",
            ]
        )
    heads = ["source", "pairs", "pass the checks", "likeness to nearest real", "real to real", "diversity", "KID"]
    return _table(
        [*heads, "PSNR outside, dB", "sharpness inside, against real", "s per adapter", "s per candidate"], lines
    )


def _row(result: Result, name: str) -> Mapping[str, Any] | None:
    return next((row for row in result["rows"] if row["row"] == name), None)


def _values(row: Mapping[str, Any] | None, metric: str) -> list[float]:
    values = [each["metrics"].get(metric) for each in row["seeds"]] if row else []
    return [100 * value for value in values if value is not None]


def _by_type(row: Mapping[str, Any] | None, metric: str) -> list[float]:
    """Return the mean over the seeds for each defect type."""
    if row is None or not row["seeds"]:
        return []
    return [statistics.mean(_of_type(row, kind, metric)) for kind in row["seeds"][0]["by_type"]]


def _of_type(row: Mapping[str, Any], kind: str, metric: str) -> list[float]:
    """Return a metric that every held-out set with defects has, by seed."""
    return [each["by_type"][kind][metric] for each in row["seeds"]]


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "–"
    return f"{statistics.mean(values):.1f}" + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "")


def _mean(entries: Iterable[Mapping[str, Any]], key: str, digits: int = 3) -> str:
    values = [entry[key] for entry in entries if entry.get(key) is not None]
    return f"{statistics.mean(values):.{digits}f}" if values else "–"


def _table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(heads) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [heads, rule, *lines])


if __name__ == "__main__":
    main(sys.argv[1:])
