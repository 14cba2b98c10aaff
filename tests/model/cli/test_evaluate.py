"""`pairforge evaluate`: what it writes and says, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from model.cli.app import app
from model.cli.session import USAGE
from model.evaluation.profiles import PROFILES
from model.evaluation.run import SAME_PAIRS
from model.export.dataset import Provenance, write_dataset
from model.types import Candidate
from tests.support.tiny_data import drawn_pair
from tests.support.tiny_evaluation import TINY, save, write_photographs


def call(*arguments: str | Path) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `pairforge evaluate ...`."""
    result = CliRunner().invoke(app, ["evaluate", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(scope="module", autouse=True)
def _tiny_profile() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PROFILES, "tiny", TINY)
        yield


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photographs(tmp_path_factory.mktemp("photographs") / "tiles")


def dataset(path: Path, defect: str = "blot", count: int = 5) -> Path:
    pairs = [drawn_pair(200 + number) for number in range(count)]
    candidates = [Candidate(number, number, pair.image, pair.mask) for number, pair in enumerate(pairs)]
    counts = {"attempts": count, "accepted": count, "rejected": {}}
    write_dataset(path, candidates, Provenance("tile", defect, {}, {}, "sha", counts))
    return path


@pytest.fixture(scope="module")
def told(photographs: Path, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder that an evaluation of a dataset wrote, and what it said."""
    folder = tmp_path_factory.mktemp("out")
    target = folder / "report"
    options = ("--profile", "tiny", "--base", tiny_base, "--pairs", dataset(folder / "blot.zip"))
    code, said, _ = call(photographs, "--out", target, *options)
    assert code == 0
    return target, said


def read(target: Path) -> dict[str, Any]:
    return dict(json.loads((target / "result.json").read_text(encoding="utf-8"), parse_constant=_refused))


def _refused(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


def test_result_and_report_are_written(told: tuple[Path, str]) -> None:
    target, _ = told
    result = read(target)
    assert [row["row"] for row in result["rows"]] == ["real", "pairs", "real+pairs"]
    assert result["verdict"]["row"] == "real+pairs"
    report = (target / "report.html").read_text(encoding="utf-8")
    assert report.lower().startswith("<!doctype html>")
    assert "the given pairs" in report
    note = f"blot: {TINY.pairs} of the 5 given pairs are used, as many as every source makes"
    assert note in result["data"]["notes"]
    assert note in report
    assert sorted(path.name for path in target.iterdir()) == ["report.html", "result.json", "work"]


def test_table_and_verdict_are_printed(told: tuple[Path, str]) -> None:
    target, said = told
    result = read(target)
    for row in result["rows"]:
        line = next(line for line in said.splitlines() if line.startswith(f"{row['title']} "))
        assert f"{100 * row['mean']['pixel_ap']:.1f} ± {100 * row['sd']['pixel_ap']:.1f}" in line
    assert result["verdict"]["sentence"] in said
    assert str(target / "report.html") in said


def test_the_same_command_goes_on_with_what_is_there(
    told: tuple[Path, str], photographs: Path, tiny_base: Path
) -> None:
    target, _ = told
    before = read(target)
    options = ("--profile", "tiny", "--base", tiny_base, "--pairs", target.with_name("blot.zip"), "--json")
    code, said, _ = call(photographs, "--out", target, *options)
    assert code == 0
    final = json.loads(said.splitlines()[-1])
    assert final["verdict"] == before["verdict"]
    assert final["result"] == str(target / "result.json")
    assert read(target)["rows"] == before["rows"]


def test_another_request_in_the_folder_is_refused(told: tuple[Path, str], photographs: Path, tiny_base: Path) -> None:
    target, _ = told
    options = ("--profile", "tiny", "--base", tiny_base, "--rows", "real", "--object", "tile")
    code, _, said = call(photographs, "--out", target, *options)
    assert code == USAGE
    assert "holds another evaluation (object differ)" in " ".join(said.split())


def test_what_limits_the_numbers_is_said(tiny_base: Path, tmp_path: Path) -> None:
    photographs = write_photographs(tmp_path / "tiles", ("blot", "stain"))
    options = ("--profile", "tiny", "--base", tiny_base, "--seeds", "1", "--pairs", dataset(tmp_path / "blot.zip"))
    code, said, _ = call(photographs, "--out", tmp_path / "report", *options)
    assert code == 0
    report = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    for limit in ("no accepted pairs of: stain", SAME_PAIRS, "IC-LPIPS: not measured: weights missing"):
        assert limit in said
        assert limit in report


def test_a_base_that_is_too_small_for_the_profile_is_refused(
    photographs: Path, tiny_base: Path, tmp_path: Path
) -> None:
    code, _, said = call(photographs, "--out", tmp_path / "report", "--profile", "paper", "--base", tiny_base)
    assert code == USAGE
    assert "the profile paper trains dualanodiff at 512 pixels" in " ".join(said.split())
    assert not (tmp_path / "report").exists()


def test_photographs_are_left_out_as_wanted(photographs: Path, tiny_base: Path, tmp_path: Path) -> None:
    options = (
        "--profile",
        "tiny",
        "--base",
        tiny_base,
        "--rows",
        "real",
        "--seeds",
        "1",
        "--without",
        "blot/p3, normal/n0",
    )
    code, said, _ = call(photographs, "--out", tmp_path / "report", *options)
    assert code == 0
    assert "No verdict: it also needs real+copy-paste. The same command with --rows real,real+copy-paste" in said
    found = read(tmp_path / "report")["data"]
    assert found["types"] == {"blot": {"train": 2, "test": 2}}
    assert found["normals"] == {"train": 2, "test": 2}
    assert "left out as wanted: blot/p3, normal/n0" in found["notes"]


def test_masks_of_several_classes_are_read_as_the_refusal_advises(tiny_base: Path, tmp_path: Path) -> None:
    folder = write_photographs(tmp_path / "tiles")
    for path in (folder / "blot" / "mask").iterdir():
        classes = np.asarray(Image.open(path)) // 255
        classes[: len(classes) // 2] *= 2
        save(path, classes)
    options = ("--base", tiny_base, "--rows", "real", "--seeds", "1")
    code, _, said = call(folder, "--out", tmp_path / "report", *options)
    assert code == USAGE
    assert "or give 1,2 to treat them as one" in said
    code, _, said = call(folder, "--out", tmp_path / "report", *options, "--mask-values", "1,2")
    assert code == 0, said


def test_everything_that_is_wrong_is_listed_at_once(photographs: Path, tmp_path: Path) -> None:
    wrong = {
        "--profile": "fast",
        "--rows": "real,paste",
        "--seeds": "0",
        "--num-pairs": "0",
        "--without": "blot/p9",
        "--pairs": str(tmp_path / "none.zip"),
        "--device": "tpu",
        "--base": str(tmp_path / "no-base"),
        "--inception": str(tmp_path / "inception.pth"),
        "--alexnet": str(tmp_path / "alexnet.pth"),
    }
    code, _, said = call(photographs, "--out", tmp_path / "report", *(word for item in wrong.items() for word in item))
    assert code == USAGE
    told = " ".join(said.split())
    for problem in (
        "profile is 'fast'; it must be quick, cpu, paper or tiny",
        "there is no row paste;",
        "seeds is 0; it must be at least 1",
        "num-pairs is 0; it must be at least 1",
        "blot/p9 is no photograph of tiles",
        "the file does not exist",
        "device is 'tpu'",
        "no-base",
        "inception.pth is not a file",
        "LPIPS needs two files",
    ):
        assert problem in told
    assert not (tmp_path / "report").exists()


def test_pairs_of_a_defect_that_the_photographs_do_not_show_are_refused(
    photographs: Path, tiny_base: Path, tmp_path: Path
) -> None:
    scratches = dataset(tmp_path / "scratch.zip", "scratch")
    code, _, said = call(photographs, "--out", tmp_path / "report", "--base", tiny_base, "--pairs", scratches)
    assert code == USAGE
    assert "the given pairs show scratch, but the photographs show blot" in " ".join(said.split())


def test_a_folder_without_a_split_is_refused_with_an_example(
    photographs: Path, tiny_base: Path, tmp_path: Path
) -> None:
    bare = write_photographs(tmp_path / "tiles")
    (bare / "splits.json").unlink()
    code, _, said = call(bare, "--out", tmp_path / "report", "--base", tiny_base)
    assert code == USAGE
    assert "has no splits.json" in said
