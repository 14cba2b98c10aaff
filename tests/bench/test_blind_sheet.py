"""A blind sheet shows as many generated windows as real ones, of the same sizes, and its key stays apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.blind_sheet import GAP, LABEL, SHOWN, Compared, Picture, draw_windows, main, read_pictures, score
from model.export.dataset import Provenance, write_dataset
from model.generation.counts import Counts
from model.generation.pair_store import PairStore
from model.types import Candidate
from service.core.errors import UsageError
from tests.support.tiny_data import drawn_pair
from tests.support.tiny_evaluation import write_photographs


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photographs(tmp_path_factory.mktemp("photographs") / "tiles")


def candidates(count: int = 4) -> list[Candidate]:
    pairs = [drawn_pair(200 + number) for number in range(count)]
    return [Candidate(number, number, pair.image, pair.mask) for number, pair in enumerate(pairs)]


def dataset(path: Path, made: list[Candidate], defect: str = "blot") -> Path:
    counts = {"attempts": len(made), "accepted": len(made), "rejected": {}}
    write_dataset(path, made, Provenance("tile", defect, {}, {}, "sha", counts))
    return path


def picture(name: str, extent: int, left: int = 100, part: str = "") -> Picture:
    image, mask = np.zeros((300, 400, 3), np.uint8), np.zeros((300, 400), np.bool_)
    mask[100 : 100 + extent, left : left + 4] = True
    return Picture(name, part or name, image, mask)


def test_both_kinds_are_as_many_and_of_the_same_sizes() -> None:
    reals = [picture(f"r{extent}", extent) for extent in range(30, 90, 2)]
    made = [picture(f"m{extent}", extent) for extent in range(10, 60, 2)]
    windows = draw_windows([Compared("blot", reals, made)], 0)
    sides = [sorted(each.side for each in windows if each.generated is kind) for kind in (False, True)]
    assert len(sides[0]) == 20
    assert sides[0] == sides[1]
    assert all(each.pixels.shape == (each.side, each.side, 3) for each in windows)
    assert len({each.name for each in windows}) == 40
    assert [each.generated for each in windows] != sorted(each.generated for each in windows)


def test_every_type_has_its_share_of_the_sheet() -> None:
    def several(kind: str) -> list[Picture]:
        return [picture(f"{kind}{number}", 40) for number in range(30)]

    compared = [Compared(defect, several(f"{defect} real"), several(f"{defect} made")) for defect in ("blot", "crack")]
    names = [each.name for each in draw_windows(compared, 0)]
    for kind in ("blot real", "blot made", "crack real", "crack made"):
        assert sum(name.startswith(kind) for name in names) == 10
    assert len(names) == 40


def test_a_seed_draws_one_sheet_and_another_seed_another() -> None:
    reals, made = ([picture(f"{kind}{extent}", extent) for extent in range(20, 80)] for kind in "rm")
    names = [[each.name for each in draw_windows([Compared("blot", reals, made)], seed)] for seed in (0, 0, 1)]
    assert names[0] == names[1] != names[2]


def test_no_part_is_shown_twice_before_all_were_shown_once() -> None:
    reals = [picture(f"r{number}", 40) for number in range(5)]
    made = [picture(f"m{number}", 40, part=str(number % 3)) for number in range(30)]
    for seed in range(5):
        shown = [each.name for each in draw_windows([Compared("blot", reals, made)], seed) if each.generated]
        assert sorted(int(name[1:]) % 3 for name in shown) in ([0, 0, 1, 1, 2], [0, 0, 1, 2, 2], [0, 1, 1, 2, 2])


def test_windows_hold_the_largest_defect_in_the_middle() -> None:
    one = picture("one", 40, left=200)
    one.image[one.mask] = 255
    one.mask[5:9, 5:9] = True
    for window in draw_windows([Compared("blot", [one], [one])], 0):
        assert window.side == 100
        assert np.argwhere(window.pixels[..., 0]).mean(axis=0) == pytest.approx([49.5, 49.5], abs=1.5)


def test_generated_pictures_of_another_size_are_shown_at_the_photographs_scale(
    photographs: Path, tmp_path: Path
) -> None:
    large = [
        Candidate(each.index, 0, each.image.repeat(2, 0).repeat(2, 1), each.mask.repeat(2, 0).repeat(2, 1))
        for each in candidates()
    ]
    (compared,) = read_pictures(photographs, dataset(tmp_path / "large.zip", large))
    assert compared.defect == "blot"
    assert [each.name for each in compared.reals] == ["p2", "p3", "p4"]
    assert {each.image.shape for each in compared.made} == {(48, 40, 3)}
    for each, drawn in zip(compared.made, candidates(), strict=True):
        assert np.array_equal(each.mask, drawn.mask)


def test_generated_pictures_on_good_parts_keep_their_scale(tmp_path: Path) -> None:
    photographs = write_photographs(tmp_path / "tiles")
    part = np.asarray(Image.open(photographs / "normal" / "image" / "n0.png"))
    Image.fromarray(part[:30]).save(photographs / "normal" / "image" / "n0.png")
    on_part = [Candidate(0, 0, each.image[:30], each.mask[:30]) for each in candidates() if each.mask[:30].any()]
    (compared,) = read_pictures(photographs, dataset(tmp_path / "blot.zip", on_part))
    assert {each.image.shape for each in compared.made} == {(30, 40, 3)}


def test_a_sheet_and_its_key_are_written_and_answers_are_scored(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, answers = tmp_path / "blind", tmp_path / "answers.json"
    main([str(photographs), str(dataset(tmp_path / "blot.zip", candidates())), "--out", str(out)])
    key = json.loads((out / "key.json").read_text(encoding="utf-8"))
    assert (key["types"], key["seed"]) == (["blot"], 0)
    assert [each["number"] for each in key["windows"]] == list(range(1, 7))
    assert sum(each["generated"] for each in key["windows"]) == 3
    with Image.open(out / "sheet.png") as sheet:
        assert sheet.size[1] == SHOWN + LABEL + 2 * GAP
        assert sheet.info == {}
    answers.write_text(json.dumps([each["number"] for each in key["windows"] if each["generated"]]))
    capsys.readouterr()
    main(["--out", str(out), "--answers", str(answers)])
    assert capsys.readouterr().out.splitlines() == [
        "0 of 3 generated windows passed for real",
        "0 of 3 real windows were called generated",
        "6 of 6 are right: 100% (95% interval 54% to 100%; guessing is 50%)",
    ]


def test_pairs_of_an_evaluation_can_be_shown(photographs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pairs" / "blot"
    store = PairStore(folder)
    store.begin({}, Counts())
    for number, each in enumerate(candidates()):
        store.add(number, each)
    store.record(Counts(attempts=4, accepted=3))
    (compared,) = read_pictures(photographs, folder)
    assert [each.name for each in compared.made] == ["candidate 0", "candidate 1", "candidate 2"]


KEY = [True, False, True, False, True, False]
SCORES: dict[str, tuple[list[Any], tuple[int, int]]] = {
    "all right": ([1, 3, 5], (0, 0)),
    "none called": ([], (3, 0)),
    "all called": ([1, 2, 3, 4, 5, 6], (0, 3)),
    "one of each, twice told": ([1, 2, 2], (2, 1)),
}


@pytest.mark.parametrize("case", SCORES)
def test_answers_are_compared_with_the_key(case: str) -> None:
    answers, (passed, accused) = SCORES[case]
    found = score(KEY, answers)
    assert (found.passed, found.accused, found.generated, found.real) == (passed, accused, 3, 3)


@pytest.mark.parametrize("answers", [[0], [7], ["1"], [1.0]])
def test_answers_that_are_no_windows_are_refused(answers: list[Any]) -> None:
    with pytest.raises(UsageError, match="answers are numbers from 1 to 6"):
        score(KEY, answers)


def test_a_dataset_of_another_defect_and_an_empty_folder_are_refused(photographs: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no defect type scratch"):
        read_pictures(photographs, dataset(tmp_path / "scratch.zip", candidates(), "scratch"))
    with pytest.raises(UsageError, match="holds no pairs"):
        read_pictures(photographs, tmp_path)
