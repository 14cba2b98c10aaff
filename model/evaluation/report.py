"""Writes the report of an evaluation: one HTML file that needs nothing else, neither on disk nor on a network."""

from __future__ import annotations

import base64
import io
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import ChainableUndefined, Environment, PackageLoader, Undefined
from markupsafe import Markup
from PIL import Image

from model.evaluation.charts import Curve, curve_chart, dot_chart
from model.evaluation.rows import without_verdict
from service.core.atomic_write import write_text

METRICS = {
    "pixel_ap": "pixel AP",
    "pixel_f1": "pixel F1-max",
    "pixel_auroc": "pixel AUROC",
    "pro": "PRO",
    "image_ap": "image AP",
    "image_f1": "image F1-max",
    "image_auroc": "image AUROC",
    "accuracy": "type accuracy",
}
"""In the order of the tables."""

PUBLISHED = ("is", "fid", "ic_lpips")

MAIN = "pixel_ap"
REFERENCE = "real"

NOTHING = "–"
QUALITY = 88
"""Of the embedded pictures, as WebP."""


def write_report(result: Mapping[str, Any], pictures: Path, target: Path) -> None:
    """Write the report; what the result lacks is left out or shown as not measured.

    Args:
        result: as `model.evaluation.run.assemble` returns it.
        pictures: folder with the pictures that the result names.
        target: HTML file, replaced if it exists.
    """
    # The package's folder is found without importing anything, and every value is escaped.
    environment = Environment(
        loader=PackageLoader("model", "evaluation"),
        autoescape=True,
        undefined=ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _percent, "number": _number, "duration": _duration, "setting": _setting}
    rows = [dict(row) for row in result.get("rows") or []]
    measured = [row for row in rows if row.get("seeds")]
    shown = [_embedded(entry, pictures, rows) for entry in result.get("pictures") or []]
    page = environment.get_template("report.html").render(
        result=result,
        rows=rows,
        metrics=_measured_metrics(measured),
        main=METRICS[MAIN],
        no_verdict=without_verdict((result.get("profile") or {}).get("rows") or [str(row.get("row")) for row in rows]),
        changes={row.get("row"): _change(row, measured) for row in measured},
        types=_by_type(measured),
        dots=_dots(measured),
        curves=_curves(measured),
        fidelity=list(_fidelity(measured)),
        costs=[_cost(row) for row in measured],
        accepted=_grouped(entry for entry in shown if not entry["reasons"]),
        rejected=_grouped(entry for entry in shown if entry["reasons"]),
    )
    write_text(target, page)


def _measured_metrics(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    found = {name for row in rows for name, value in (row.get("mean") or {}).items() if value is not None}
    return {name: title for name, title in METRICS.items() if name in found}


def _change(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> tuple[float, float | None] | None:
    """Return mean and standard deviation, over the seeds, of the main metric's difference to the reference."""
    before = _values(next((each for each in rows if each.get("row") == REFERENCE), {}))
    differences = [value - before[seed] for seed, value in _values(row).items() if seed in before]
    if not differences or row.get("row") == REFERENCE:
        return None
    return statistics.mean(differences), _deviation(differences)


def _values(row: Mapping[str, Any], metric: str = MAIN) -> dict[int, float]:
    """Return a metric by seed."""
    values = {each.get("seed"): (each.get("metrics") or {}).get(metric) for each in row.get("seeds") or []}
    return {seed: value for seed, value in values.items() if value is not None}


def _by_type(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return the main metrics of each defect type: type → its rows, each with means and deviations."""
    table: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        names = dict.fromkeys(defect for each in row["seeds"] for defect in each.get("by_type") or {})
        for defect in names:
            found = [each["by_type"][defect] for each in row["seeds"] if defect in (each.get("by_type") or {})]
            line = {"title": row.get("title", row.get("row")), "mean": {}, "sd": {}}
            for metric in METRICS:
                values = [each[metric] for each in found if each.get(metric) is not None]
                if values:
                    line["mean"][metric], line["sd"][metric] = statistics.mean(values), _deviation(values)
            table.setdefault(defect, []).append(line)
    return table


def _dots(rows: Sequence[Mapping[str, Any]]) -> Markup | None:
    lines = [(str(row.get("title", row.get("row"))), list(_values(row).values())) for row in rows]
    reference = list(_values(next((row for row in rows if row.get("row") == REFERENCE), {})).values())
    lines = [(title, values) for title, values in lines if values]
    return dot_chart(lines, statistics.mean(reference) if reference else None, METRICS[MAIN]) if lines else None


def _curves(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, Markup]]:
    """Return title and chart of every row that has curves, over those of the reference."""
    reference = next((_curves_of(row) for row in rows if row.get("row") == REFERENCE), [])
    charts = []
    for row in rows:
        title, curves = str(row.get("title", row.get("row"))), _curves_of(row)
        if curves:
            below = [] if row.get("row") == REFERENCE else reference
            charts.append((title, curve_chart(curves, below, f"precision over recall: {title}")))
    return charts


def _curves_of(row: Mapping[str, Any]) -> list[Curve]:
    curves = [each.get("curve") or {} for each in row.get("seeds") or []]
    return [list(zip(each["recall"], each["precision"], strict=True)) for each in curves if each.get("recall")]


def _fidelity(rows: Sequence[Mapping[str, Any]]) -> Iterable[dict[str, Any]]:
    """Yield, per row and defect type, the means over the seeds of what was measured on the pictures."""
    for row in rows:
        measured = [each["fidelity"] for each in row["seeds"] if each.get("fidelity")]
        for defect in dict.fromkeys(defect for each in measured for defect in each):
            found = [each[defect] for each in measured if defect in each]
            numbers = {name: _mean(each.get(name) for each in found) for name in found[0]}
            texts = {name: found[0].get(name) for name in ("kid_name", "psnr_note")}
            published = {"published": _published([each["published"] for each in found if each.get("published")])}
            yield {"title": row.get("title", row.get("row")), "type": defect, **numbers, **texts, **published}


def _published(found: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the means of what was measured as published, and the first note; None if no weights were named."""
    if not found:
        return None
    return {name: _mean(each.get(name) for each in found) for name in PUBLISHED} | {"note": found[0].get("note")}


def _cost(row: Mapping[str, Any]) -> dict[str, Any]:
    seconds = [each.get("seconds") or {} for each in row["seeds"]]
    stages = {stage: _mean(each.get(stage) for each in seconds) for stage in ("train", "generate", "detector")}
    counts = [one for each in row["seeds"] for one in (each.get("counts") or {}).values()]
    reasons: dict[str, int] = {}
    for one in counts:
        for reason, number in (one.get("rejected") or {}).items():
            reasons[reason] = reasons.get(reason, 0) + number
    return {
        "title": row.get("title", row.get("row")),
        **stages,
        "attempts": sum(one.get("attempts", 0) for one in counts),
        "accepted": sum(one.get("accepted", 0) for one in counts),
        "reasons": sorted(reasons.items(), key=lambda item: -item[1]),
    }


def _embedded(entry: Mapping[str, Any], folder: Path, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return an entry of the pictures with data URIs in place of files, and its source's title."""
    added = next((row for row in rows if row.get("row") == entry.get("row")), {})
    uris = {name: _data_uri(folder, entry.get(name)) for name in ("image", "mask", "nearest")}
    title = added.get("title") or entry.get("row")
    return {**entry, **uris, "title": title, "reasons": entry.get("reasons") or []}


def _data_uri(folder: Path, name: str | None) -> str | None:
    path = folder / Path(name).name if name else None
    if path is None or not path.is_file():
        return None
    encoded = io.BytesIO()
    with Image.open(path) as picture:
        picture.convert("RGB").save(encoded, "WEBP", quality=QUALITY)
    return f"data:image/webp;base64,{base64.b64encode(encoded.getvalue()).decode()}"


def _grouped(entries: Iterable[dict[str, Any]]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Group pictures: title of the source → defect type → pictures."""
    groups: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for entry in entries:
        groups.setdefault(str(entry["title"]), {}).setdefault(str(entry.get("type", "")), []).append(entry)
    return groups


def _mean(values: Iterable[Any]) -> float | None:
    numbers = [value for value in values if isinstance(value, (int, float))]
    return statistics.mean(numbers) if numbers else None


def _deviation(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None


def _percent(mean: float | Undefined | None, sd: float | Undefined | None = None, *, signed: bool = False) -> str:
    if not isinstance(mean, (int, float)):
        return NOTHING
    text = f"{100 * mean:+.1f}".replace("-", "−") if signed else f"{100 * mean:.1f}"
    return f"{text} ± {100 * sd:.1f}" if isinstance(sd, (int, float)) else text


def _setting(value: Any) -> str:
    """Show a number, text, list or group of the profile."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_setting(one)}" for name, one in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join(map(str, value))
    return "by method and base" if value is None else str(value)


def _number(value: float | Undefined | None, digits: int = 3) -> str:
    return f"{value:.{digits}f}" if isinstance(value, (int, float)) else NOTHING


def _duration(seconds: float | Undefined | None) -> str:
    if not isinstance(seconds, (int, float)):
        return NOTHING
    minutes = seconds / 60
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
