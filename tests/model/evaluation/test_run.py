"""A whole evaluation: what it measures, how it goes on after an interruption, and its verdict."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from model.diffusion.base import Base, load_base
from model.evaluation import trial
from model.evaluation.data import DefectSplit, EvaluationData, read_evaluation_data
from model.evaluation.rows import SOURCES, Source
from model.evaluation.run import SAME_PAIRS, EvaluationRequest, assemble, evaluate, verdict
from model.evaluation.sources import MadePairs
from model.evaluation.trial import averaged
from model.masks.networks import MaskNetworks
from model.runtime.progress import Progress
from model.types import Candidate, Pair
from service.core.errors import UsageError
from tests.support.tiny_data import drawn_pair, last
from tests.support.tiny_evaluation import TINY, write_photographs

Result = dict[str, Any]


@pytest.fixture(scope="module")
def base(tiny_base: Path) -> Base:
    return load_base(str(tiny_base))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> EvaluationData:
    return read_evaluation_data(write_photographs(tmp_path_factory.mktemp("photographs") / "tiles"))


@pytest.fixture(scope="module")
def request_(base: Base, data: EvaluationData) -> EvaluationRequest:
    return EvaluationRequest(data, TINY, base, MaskNetworks(None, None), command="pairforge evaluate tiles")


@dataclass(frozen=True)
class Finished:
    """An evaluation that nothing interrupted."""

    work: Path
    items: list[Progress | Result]

    @property
    def result(self) -> Result:
        final = self.items[-1]
        assert isinstance(final, dict)
        return final


@pytest.fixture(scope="module")
def finished(request_: EvaluationRequest, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    work = tmp_path_factory.mktemp("finished") / "work"
    return Finished(work, list(evaluate(request_, work)))


def asked(request: EvaluationRequest, **chosen: Any) -> EvaluationRequest:
    return replace(request, profile=replace(request.profile, **chosen))


def row(result: Result, name: str) -> Result:
    return next(each for each in result["rows"] if each["row"] == name)


def numbers(result: Result) -> Result:
    """Return a result without what it took: times, and how its machine is called."""
    rows = [
        each | {"seeds": [{name: value for name, value in seed.items() if name != "seconds"} for seed in each["seeds"]]}
        for each in result["rows"]
    ]
    return result | {"rows": rows}


def written(work: Path) -> dict[str, int]:
    return {path.relative_to(work).as_posix(): path.stat().st_mtime_ns for path in work.glob("seed-*/rows/*.json")}


def test_every_row_is_measured_with_every_seed(finished: Finished) -> None:
    result = finished.result
    assert [each["row"] for each in result["rows"]] == list(TINY.rows)
    for each in result["rows"]:
        assert [seed["seed"] for seed in each["seeds"]] == [0, 1]
        for name, mean in each["mean"].items():
            values = [seed["metrics"][name] for seed in each["seeds"]]
            assert mean == pytest.approx(np.mean(values))
            assert each["sd"][name] == pytest.approx(np.std(values, ddof=1))
    assert result["data"]["types"] == {"blot": {"train": 2, "test": 3}}
    assert result["data"]["normals"] == {"train": 3, "test": 2}


def test_a_rows_numbers_are_the_means_of_its_detectors(finished: Finished) -> None:
    for each in finished.result["rows"]:
        for seed in each["seeds"]:
            first, second = seed["detectors"]
            assert first["pixel_ap"] != second["pixel_ap"]
            for name, value in seed["metrics"].items():
                assert value == pytest.approx(np.mean([first[name], second[name]]))
            assert np.all(np.diff(seed["curve"]["recall"]) >= 0)
            assert len(seed["curve"]["precision"]) == len(seed["curve"]["recall"])


def test_what_no_detector_could_measure_stays_unmeasured() -> None:
    nothing: Result = {
        "metrics": {"pro": None, "pixel_ap": 0.5},
        "by_type": {},
        "curve": {"recall": [], "precision": []},
    }
    found = averaged([nothing, nothing | {"metrics": {"pro": None, "pixel_ap": 0.7}}])
    assert found["metrics"] == {"pro": None, "pixel_ap": pytest.approx(0.6)}
    assert found["curve"] == {"recall": [], "precision": []}


def test_a_result_is_strict_json(finished: Finished) -> None:
    assert json.loads(json.dumps(finished.result, allow_nan=False)) == finished.result


def test_there_is_a_result_after_every_seed_and_the_last_one_is_complete(
    finished: Finished, request_: EvaluationRequest
) -> None:
    results = [item for item in finished.items if isinstance(item, dict)]
    assert [len(row(each, "real")["seeds"]) for each in results] == [1, 2]
    assert assemble(request_, finished.work) == finished.result


def test_progress_ends_with_all_rows(finished: Finished) -> None:
    rows = [item for item in finished.items if isinstance(item, Progress) and item.stage == "rows"]
    assert [each.completed for each in rows] == list(range(7))
    assert {each.total for each in rows} == {6}


def test_rows_of_earlier_runs_come_first_and_take_no_time(
    finished: Finished, request_: EvaluationRequest, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    shutil.copytree(finished.work, work)
    (work / "seed-0" / "rows" / "real.json").unlink()
    rows = [item for item in evaluate(request_, work) if isinstance(item, Progress) and item.stage == "rows"]
    assert [(each.completed, each.eta) for each in rows] == [(5, None), (6, 0)]


def test_baselines_are_unchecked_and_counted(finished: Finished) -> None:
    for seed in row(finished.result, "copy-paste")["seeds"]:
        counts = seed["counts"]["blot"]
        assert counts["accepted"] == counts["attempts"] == TINY.pairs
        assert 0 <= counts["would_pass"] <= TINY.pairs


def test_pictures_show_every_source_and_are_all_there(finished: Finished) -> None:
    entries = finished.result["pictures"]
    assert {entry["row"] for entry in entries} == {"copy-paste"}
    assert len(entries) == TINY.pairs
    for entry in entries:
        for kind in ("image", "mask", "nearest"):
            with Image.open(finished.work / "pictures" / entry[kind]) as picture:
                assert picture.size[0] == picture.size[1]


def test_pictures_name_the_nearest_real_defects_that_were_measured(
    finished: Finished, request_: EvaluationRequest, tmp_path: Path
) -> None:
    """Also where no row of the source alone was measured."""
    fidelity = row(finished.result, "copy-paste")["seeds"][0]["fidelity"]["blot"]
    expected = [f"real-blot-{number}.png" for number in fidelity["nearest_index"]]
    together = last(evaluate(asked(request_, rows=("real+copy-paste",), seeds=(0,), steps=2), tmp_path / "work"))
    for result in (finished.result, together):
        assert [entry["nearest"] for entry in result["pictures"]] == expected


@pytest.mark.parametrize("items", [2, 9])
def test_an_interrupted_evaluation_goes_on_with_the_same_numbers(
    finished: Finished, request_: EvaluationRequest, tmp_path: Path, items: int
) -> None:
    running = evaluate(request_, tmp_path / "work")
    list(itertools.islice(running, items))
    running.close()
    before = written(tmp_path / "work")
    again = last(evaluate(request_, tmp_path / "work"))
    assert numbers(again) == numbers(finished.result)
    after = written(tmp_path / "work")
    assert len(after) == 6
    assert before.items() <= after.items()


def test_a_finished_evaluation_measures_nothing_again(finished: Finished, request_: EvaluationRequest) -> None:
    before = written(finished.work)
    items = list(evaluate(request_, finished.work))
    assert items[-1] == finished.result
    assert {item.stage for item in items if isinstance(item, Progress)} == {"rows"}
    assert written(finished.work) == before


def test_rows_and_seeds_are_added_to_what_is_measured(
    finished: Finished, request_: EvaluationRequest, tmp_path: Path
) -> None:
    first = asked(request_, rows=("real",), seeds=(0,))
    last(evaluate(first, tmp_path / "work"))
    before = written(tmp_path / "work")
    more = last(evaluate(request_, tmp_path / "work"))
    assert numbers(more) == numbers(finished.result)
    assert before.items() <= written(tmp_path / "work").items()


def test_another_request_is_refused_and_replaced_where_that_is_wanted(
    request_: EvaluationRequest, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    brief = asked(request_, rows=("real",), seeds=(0,), steps=2)
    last(evaluate(brief, work))
    other = replace(asked(brief, steps=3), object_name="tile")
    with pytest.raises(UsageError, match=r"holds another evaluation \(object, profile differ\).*--force"):
        next(evaluate(other, work))
    before = written(work)
    result = last(evaluate(other, work, force=True))
    assert result["profile"]["steps"] == 3
    assert written(work) != before
    assert last(evaluate(other, work)) == result


def test_a_folder_with_other_files_is_never_replaced(request_: EvaluationRequest, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    for force in (False, True):
        with pytest.raises(UsageError, match="contains other files"):
            next(evaluate(request_, tmp_path, force=force))
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_a_source_that_cannot_be_used_is_noted_and_the_others_are_measured(
    request_: EvaluationRequest, data: EvaluationData, tmp_path: Path
) -> None:
    """Pastes need good parts to lie on; here there are none to learn from."""
    bare = replace(asked(request_, seeds=(0,), steps=2), data=replace(data, normals_train=[]))
    result = last(evaluate(bare, tmp_path / "work"))
    assert row(result, "real")["mean"]
    for name in ("copy-paste", "real+copy-paste"):
        assert "normal images, but none were given" in row(result, name)["skipped"]
        assert row(result, name)["seeds"] == []
    assert result["verdict"] is None
    assert result["pictures"] == []


def test_a_source_that_could_not_be_used_is_tried_again(request_: EvaluationRequest, tmp_path: Path) -> None:
    asked_for = asked(request_, rows=("real", "copy-paste"), seeds=(0,), steps=2)
    last(evaluate(asked(request_, rows=("real",), seeds=(0,), steps=2), tmp_path / "work"))
    strangers = tmp_path / "work/seed-0/pairs/copy-paste/blot"
    strangers.mkdir(parents=True)
    (strangers / "notes.txt").write_text("mine")
    skipped = row(last(evaluate(asked_for, tmp_path / "work")), "copy-paste")
    assert "contains other files" in skipped["skipped"]
    (strangers / "notes.txt").unlink()
    found = row(last(evaluate(asked_for, tmp_path / "work")), "copy-paste")
    assert "skipped" not in found
    assert found["mean"]


def test_given_pairs_are_a_source(request_: EvaluationRequest, tmp_path: Path) -> None:
    pairs = [drawn_pair(300 + number) for number in range(3)]
    made = MadePairs(
        [Candidate(5, 5, pair.image, pair.mask) for pair in pairs], {"attempts": 3, "accepted": 3, "rejected": {}}, {}
    )
    given = replace(
        asked(request_, rows=("real", "pairs", "real+pairs"), seeds=(0,), steps=2),
        sources={"pairs": Source("the given pairs", "")},
        given={"pairs": {"blot": made}},
    )
    result = last(evaluate(given, tmp_path / "work"))
    assert row(result, "real+pairs")["title"] == "real pairs + the given pairs"
    assert row(result, "pairs")["seeds"][0]["counts"] == {"blot": made.counts}
    assert len({entry["image"] for entry in result["pictures"]}) == 3
    assert result["verdict"]["note"] == SAME_PAIRS
    other = replace(given, given={"pairs": {"blot": replace(made, pairs=made.pairs[:2])}})
    with pytest.raises(UsageError, match=r"holds numbers of pairs, real\+pairs from other pairs: --force"):
        next(evaluate(other, tmp_path / "work"))
    before = written(tmp_path / "work")
    last(evaluate(other, tmp_path / "work", force=True))
    after = written(tmp_path / "work")
    assert [name for name in before if before[name] == after[name]] == ["seed-0/rows/real.json"]


def given_to(request: EvaluationRequest, defect: str = "blot") -> EvaluationRequest:
    """Compare the real pairs with three given ones of one defect type."""
    pairs = [drawn_pair(300 + number) for number in range(3)]
    made = MadePairs([Candidate(5, 5, pair.image, pair.mask) for pair in pairs], {"attempts": 3, "accepted": 3}, {})
    return replace(
        asked(request, rows=("real", "real+pairs")),
        sources={**SOURCES, "pairs": Source("the given pairs", "")},
        given={"pairs": {defect: made}},
    )


def test_given_pairs_join_what_is_measured(request_: EvaluationRequest, tmp_path: Path) -> None:
    """Rows of earlier commands keep their numbers, and the result tells which command measured them."""
    brief = asked(request_, rows=("real", "copy-paste"), seeds=(0,), steps=2)
    last(evaluate(brief, tmp_path / "work"))
    before = written(tmp_path / "work")
    joined = replace(given_to(brief), command="pairforge evaluate tiles --pairs blot.zip")
    joined = asked(joined, rows=("real", "copy-paste", "real+pairs"))
    result = last(evaluate(joined, tmp_path / "work"))
    assert before.items() <= written(tmp_path / "work").items()
    assert [row(result, name).get("commands") for name in ("real", "copy-paste", "real+pairs")] == [
        [brief.command],
        [brief.command],
        None,
    ]
    assert result["verdict"]["row"] == "real+pairs"


def test_a_source_that_was_declared_otherwise_is_refused_and_made_again(
    request_: EvaluationRequest, tmp_path: Path
) -> None:
    brief = asked(request_, rows=("real", "copy-paste"), seeds=(0,), steps=2)
    first = last(evaluate(brief, tmp_path / "work"))
    retitled = replace(SOURCES["copy-paste"], title="pastes")
    assert row(last(evaluate(replace(brief, sources={"copy-paste": retitled}), tmp_path / "work")), "copy-paste")
    other = replace(brief, sources={"copy-paste": replace(retitled, sampling={"deform": True})})
    with pytest.raises(UsageError, match="holds numbers of copy-paste from other pairs"):
        next(evaluate(other, tmp_path / "work"))
    again = last(evaluate(other, tmp_path / "work", force=True))
    kinds = ("real", "copy-paste")
    assert [numbers(again)["rows"][at] == numbers(first)["rows"][at] for at in range(len(kinds))] == [True, False]


def test_a_type_without_pairs_is_told(base: Base, tmp_path: Path) -> None:
    data = read_evaluation_data(write_photographs(tmp_path / "tiles", ("blot", "stain")))
    request = asked(EvaluationRequest(data, TINY, base, MaskNetworks(None, None)), seeds=(0,), steps=2)
    result = last(evaluate(given_to(request, "stain"), tmp_path / "work"))
    assert row(result, "real")["notes"] == []
    assert row(result, "real+pairs")["notes"] == ["no accepted pairs of: blot"]
    assert result["verdict"]["note"] == f"no accepted pairs of: blot; {SAME_PAIRS}"


def test_a_doubtful_split_is_noted_with_the_verdict(finished: Finished, request_: EvaluationRequest) -> None:
    assert "note" not in finished.result["verdict"]
    doubted = replace(request_, data=replace(request_.data, same_parts=["p0 and p2 look like one part"]))
    assert assemble(doubted, finished.work)["verdict"]["note"] == "p0 and p2 look like one part"


def test_measures_without_their_weights_are_said_to_be_missing(finished: Finished, request_: EvaluationRequest) -> None:
    assert finished.result["notes"] == ["Inception Score, FID and IC-LPIPS: not measured: weights missing"]
    assert assemble(asked(request_, rows=("real",)), finished.work)["notes"] == []


def spoilt(pair: Pair) -> Pair:
    return replace(pair, image=255 - pair.image, mask=~pair.mask)


def test_held_out_photographs_never_reach_a_training(
    request_: EvaluationRequest, data: EvaluationData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is held out, the same pairs are made and the detectors are the same, bit for bit."""
    other = replace(
        data,
        defects={
            kind: DefectSplit(split.train, [spoilt(each) for each in split.test])
            for kind, split in data.defects.items()
        },
        normals_test=[replace(normal, image=255 - normal.image) for normal in data.normals_test],
    )
    assert other.defects["blot"].test[0].image[0, 0, 0] != data.defects["blot"].test[0].image[0, 0, 0]
    brief = asked(request_, seeds=(0,), steps=3)
    seen = [
        _weights(each, tmp_path / name, monkeypatch)
        for name, each in (("one", brief), ("two", replace(brief, data=other)))
    ]
    assert len(seen[0]) == 3 * brief.profile.detectors
    assert seen[0] == seen[1]


def _weights(request: EvaluationRequest, work: Path, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Run an evaluation, and return the weights of each detector that it tests."""
    found: dict[int, bytes] = {}
    predict = trial.predict

    def watched(net: Any, images: Any) -> Any:
        found[id(net)] = b"".join(value.numpy().tobytes() for value in net.state_dict().values())
        kept.append(net)
        return predict(net, images)

    kept: list[Any] = []
    with monkeypatch.context() as patch:
        patch.setattr(trial, "predict", watched)
        last(evaluate(request, work))
    return list(found.values())


def test_several_types_are_measured_each_and_told_apart(base: Base, tmp_path: Path) -> None:
    data = read_evaluation_data(write_photographs(tmp_path / "tiles", ("blot", "stain")))
    profile = replace(TINY, rows=("real",), seeds=(0,), steps=2)
    result = last(evaluate(EvaluationRequest(data, profile, base, MaskNetworks(None, None)), tmp_path / "work"))
    (seed,) = row(result, "real")["seeds"]
    assert set(seed["by_type"]) == {"blot", "stain"}
    assert 0 <= seed["metrics"]["accuracy"] <= 1


def measured(name: str, values: Mapping[int, float]) -> Result:
    return {"row": name, "seeds": [{"seed": seed, "metrics": {"pixel_ap": value}} for seed, value in values.items()]}


REAL = measured("real", {0: 0.40, 1: 0.60, 2: 0.50})
VERDICTS: dict[str, tuple[dict[int, float], float, float | None, bool | None, str]] = {
    "better": ({0: 0.50, 1: 0.72, 2: 0.58}, 0.10, 0.02, True, "changed pixel AP by +10.0 ± 2.0 points"),
    "worse": ({0: 0.30, 1: 0.48, 2: 0.42}, -0.10, 0.02, False, "changed pixel AP by −10.0 ± 2.0 points"),
    "chance": ({0: 0.44, 1: 0.56, 2: 0.50}, 0.0, 0.04, None, "changed pixel AP by +0.0 ± 4.0 points"),
    "large but uncertain": ({0: 0.41, 1: 0.65, 2: 0.59}, 0.05, 0.04, None, "by +5.0 ± 4.0 points"),
    "one seed": ({1: 0.75}, 0.15, None, None, "changed pixel AP by +15.0 points"),
}
ENDS = {
    "better": ": they help.",
    "worse": ": they harm.",
    "chance": ": that may be chance.",
    "large but uncertain": ": that may be chance.",
    "one seed": "; one seed tells nothing about chance.",
}


@pytest.mark.parametrize("case", VERDICTS)
def test_a_verdict_compares_seed_by_seed(case: str) -> None:
    values, change, spread, helps, said = VERDICTS[case]
    found = verdict([REAL, measured("copy-paste", {0: 1.0}), measured("real+copy-paste", values)])
    assert found is not None
    assert found["change"] == pytest.approx(change, abs=1e-9)
    assert found["spread"] == (None if spread is None else pytest.approx(spread))
    # Student's t of 95 % with two degrees of freedom, over the root of three seeds.
    assert found["by_chance"] == (None if spread is None else pytest.approx(4.3027 / 3**0.5 * spread, rel=1e-4))
    assert found["helps"] is helps
    assert found["seeds"] == len(values)
    assert said in found["sentence"]
    assert found["sentence"].endswith(f"on your held-out photographs{ENDS[case]}")


def typed(name: str, *seeds: tuple[float, float | None, float | None]) -> Result:
    """Pixel AP of cracks and of holes, and the accuracy of telling them apart, by seed."""
    return {
        "row": name,
        "seeds": [
            {
                "seed": seed,
                "metrics": {"pixel_ap": 0.5, "accuracy": accuracy},
                "by_type": {"crack": {"pixel_ap": crack}, "hole": {"pixel_ap": hole}},
            }
            for seed, (crack, hole, accuracy) in enumerate(seeds)
        ],
    }


def test_a_verdict_tells_each_type_and_how_well_types_are_told_apart() -> None:
    """What was not measured before or after in a seed tells nothing in it."""
    before = typed("real", (0.4, 0.2, None), (0.4, None, 0.5))
    found = verdict([before, typed("real+paste", (0.5, 0.3, 0.8), (0.7, 0.3, 0.75))])
    assert found is not None
    assert found["by_type"]["crack"] == {"change": pytest.approx(0.2), "spread": pytest.approx(0.1 * 2**0.5)}
    assert found["by_type"]["hole"] == {"change": pytest.approx(0.1), "spread": None}
    assert found["accuracy"] == {"change": pytest.approx(0.25), "spread": None}
    none = verdict([typed("real", (0.4, None, None)), typed("real+paste", (0.5, 0.3, 0.8))])
    assert none is not None
    assert (none["by_type"]["hole"], none["accuracy"]) == (None, None)


def test_a_verdict_is_on_the_last_row_that_adds_pairs() -> None:
    found = verdict(
        [measured("real+one", {0: 0.9, 1: 0.9}), REAL, measured("real+two", {0: 0.4, 1: 0.6}), {**REAL, "row": "three"}]
    )
    assert found is not None
    assert (found["row"], found["change"]) == ("real+two", 0)


NO_VERDICT: list[Iterable[Result]] = [
    [],
    [REAL],
    [REAL, measured("copy-paste", {0: 0.5})],
    [measured("real+copy-paste", {0: 0.5})],
    [REAL, measured("real+copy-paste", {})],
    [REAL, measured("real+copy-paste", {7: 0.5})],
]


@pytest.mark.parametrize("rows", NO_VERDICT)
def test_without_both_rows_of_one_seed_there_is_no_verdict(rows: list[Result]) -> None:
    assert verdict(rows) is None
