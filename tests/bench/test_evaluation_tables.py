"""The tables of results: one line per source, and a dash for what older results lack."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.evaluation_tables import main

FIDELITY: dict[str, float | None] = {
    "nearest_real": 0.7,
    "nearest_among_reals": 0.6,
    "diversity": 0.5,
    "kid": 0.1,
    "psnr_outside": None,
}


def row(
    name: str, fidelity: dict[str, float | None] | None = None, *, attempts: int = 4, seeds: int = 1
) -> dict[str, Any]:
    metrics = {"pixel_ap": 0.5}
    seed: dict[str, Any] = {"metrics": metrics, "by_type": {"blot": metrics}, "seconds": {"generate": 8.0}}
    if fidelity is not None:
        counts = {"attempts": attempts, "accepted": min(attempts, 3), "rejected": {}}
        seed |= {"fidelity": {"blot": fidelity}, "counts": {"blot": counts}}
    return {
        "row": name,
        "title": name,
        "seeds": [{"seed": number, **seed} for number in range(seeds)],
        "mean": metrics,
        "sd": {},
    }


def printed(folder: Path, capsys: pytest.CaptureFixture[str], **sets: list[dict[str, Any]]) -> str:
    """Return what the tool prints of these rows by set."""
    paths = []
    for name, rows in sets.items():
        data = {"name": name, "types": {"blot": {"train": 2, "test": 3}}}
        result = {"data": data, "command": f"pairforge evaluate {name}", "rows": rows}
        path = folder / f"{name}.json"
        path.write_text(json.dumps(result), encoding="utf-8")
        paths.append(str(path))
    main(paths)
    return capsys.readouterr().out.strip()


@pytest.mark.parametrize(("measured", "shown"), [({"sharpness": 0.637}, "0.64"), ({}, "–"), ({"sharpness": None}, "–")])
def test_sharpness_is_a_column(
    measured: dict[str, float | None], shown: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = printed(tmp_path, capsys, tiles=[row("real"), row("paste", FIDELITY | measured)])
    assert of_the_last_source(text)["sharpness inside, against real"] == shown


def of_the_last_source(text: str) -> dict[str, str]:
    heads, _, line = (each.split(" | ") for each in text.splitlines()[-3:])
    return dict(zip(heads, line, strict=True))


def test_a_source_without_candidates_has_no_rates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(tmp_path, capsys, tiles=[row("real"), row("given", FIDELITY, attempts=0)])
    assert of_the_last_source(text)["pass the checks"] == "–"
    assert of_the_last_source(text)["s per candidate |"] == "– |"


def test_rows_of_fewer_seeds_are_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, partly = [row("real", seeds=3), row("paste", seeds=3)], [row("real", seeds=3), row("paste", seeds=2)]
    text = printed(tmp_path, capsys, tiles=partly, cookies=[row("real", seeds=2)], plates=whole)
    overview, tiles, cookies, plates = text.split("### ")
    assert "| tiles *, all types | cookies *, all types | plates, all types |" in overview
    assert "\\* tiles: rows differ in their number of seeds: 2 (paste), 3 (real)" in overview
    assert "\\* cookies: all rows have 2 of 3 seeds" in overview
    assert "rows differ in their number of seeds: 2 (paste), 3 (real)" in tiles
    assert "seeds:" not in cookies + plates


def test_rows_of_as_many_seeds_need_no_mark(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "*" not in printed(tmp_path, capsys, tiles=[row("real", seeds=2), row("paste", seeds=2)])
