"""More real photographs of the training parts: who is trained on, and who is tested on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import headroom
from bench.headroom import main
from model.evaluation.data import read_evaluation_data
from tests.support.tiny_data import drawn_pair
from tests.support.tiny_evaluation import SPLITS, TINY, save, write_photographs


def write_more(folder: Path, key: str) -> Path:
    """Write photographs, of which one more shows a training part."""
    write_photographs(folder)
    pair = drawn_pair(40)
    save(folder / "blot" / "image" / "p9.png", pair.image)
    save(folder / "blot" / "mask" / "p9.png", pair.mask.astype("uint8") * 255)
    splits = json.loads((folder / "splits.json").read_text(encoding="utf-8"))
    splits["defects"]["blot"] = {**SPLITS, key: ["p9"]}
    (folder / "splits.json").write_text(json.dumps(splits), encoding="utf-8")
    return folder


@pytest.mark.parametrize("key", headroom.REST)
def test_few_and_all_photographs_of_the_training_parts_are_compared(
    tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(headroom.PROFILES, "cpu", TINY)
    data = write_more(tmp_path / "data", key)
    before = sorted(path.name for path in data.rglob("*"))
    assert main([str(data), "--out", str(tmp_path / "out"), "--steps", "2", "4", "--seeds", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(": pixel AP")[0] for line in lines] == [
        "data, few: 2 pairs, 2 steps",
        "data, few: 2 pairs, 4 steps",
        "data, all: 3 pairs, 2 steps",
        "data, all: 3 pairs, 4 steps",
    ]
    few, every = read_evaluation_data(data), read_evaluation_data(tmp_path / "out" / "all")
    assert [pair.name for pair in every.defects["blot"].test] == [pair.name for pair in few.defects["blot"].test]
    assert sorted(path.name for path in data.rglob("*")) == before


def test_a_split_without_further_photographs_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_photographs(tmp_path / "data")
    assert main([str(data), "--out", str(tmp_path / "out")]) == 2
    assert "names no further photographs" in capsys.readouterr().err
