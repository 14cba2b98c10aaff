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


def row(name: str, fidelity: dict[str, float | None] | None) -> dict[str, Any]:
    metrics = {"pixel_ap": 0.5}
    seed: dict[str, Any] = {"seed": 0, "metrics": metrics, "by_type": {"blot": metrics}, "seconds": {"generate": 8.0}}
    if fidelity is not None:
        counts = {"attempts": 4, "accepted": 3, "rejected": {}}
        seed |= {"fidelity": {"blot": fidelity}, "counts": {"blot": counts}}
    return {"row": name, "title": name, "seeds": [seed], "mean": metrics, "sd": {}}


@pytest.mark.parametrize(("measured", "shown"), [({"sharpness": 0.637}, "0.64"), ({}, "–"), ({"sharpness": None}, "–")])
def test_sharpness_is_a_column(
    measured: dict[str, float | None], shown: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row("real", None), row("paste", FIDELITY | measured)]
    data = {"name": "tiles", "types": {"blot": {"train": 2, "test": 3}}}
    path = tmp_path / "result.json"
    path.write_text(json.dumps({"data": data, "command": "pairforge evaluate tiles", "rows": rows}), encoding="utf-8")
    main([str(path)])
    heads, _, line = (text.split(" | ") for text in capsys.readouterr().out.strip().splitlines()[-3:])
    assert dict(zip(heads, line, strict=True))["sharpness inside, against real"] == shown
