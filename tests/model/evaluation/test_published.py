"""Inception Score, FID and what is said about them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model.diffusion.base import load_base
from model.evaluation.data import read_evaluation_data
from model.evaluation.published import (
    PublishedWeights,
    frechet_distance,
    inception_score,
    load_published,
    measure_published,
)
from model.evaluation.run import EvaluationRequest, evaluate
from model.masks.networks import MaskNetworks
from model.types import Candidate, Pair
from service.core.errors import UsageError
from tests.support.published_weights import write_inception, write_lpips
from tests.support.tiny_data import drawn_pair
from tests.support.tiny_evaluation import TINY, write_photographs


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    folder = tmp_path_factory.mktemp("weights")
    return (write_inception(folder / "inception.pth"), *write_lpips(folder))


@pytest.fixture(scope="module")
def weights(files: tuple[Path, Path, Path]) -> PublishedWeights:
    loaded = load_published(*files)
    assert loaded is not None
    return loaded


def candidates(pairs: list[Pair]) -> list[Candidate]:
    return [Candidate(number, number, pair.image, pair.mask) for number, pair in enumerate(pairs)]


def drawn(seed: int, count: int, mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Features whose mean and covariance are exactly these."""
    raw = np.random.default_rng(seed).standard_normal((count, len(mean)))
    white = np.linalg.qr(raw - raw.mean(axis=0)).Q * np.sqrt(count - 1)
    return white @ np.linalg.cholesky(covariance).T + mean


def test_fid_of_gaussians_that_commute_is_the_closed_form() -> None:
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((8, 8))).Q
    a, b = np.linspace(0.5, 4, 8), np.linspace(3, 0.1, 8)
    x = drawn(1, 50, np.zeros(8), turn @ np.diag(a) @ turn.T)
    y = drawn(2, 30, np.full(8, 0.5), turn @ np.diag(b) @ turn.T)
    assert frechet_distance(x, y) == pytest.approx(8 * 0.25 + np.square(np.sqrt(a) - np.sqrt(b)).sum())


def test_fid_of_any_gaussians_is_by_the_matrix_root() -> None:
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal((40, 6)) @ rng.standard_normal((6, 6)) + shift for shift in (0, 1))
    product = np.cov(x, rowvar=False) @ np.cov(y, rowvar=False)
    root = np.sqrt(np.linalg.eigvals(product).real).sum()
    traces = np.trace(np.cov(x, rowvar=False)) + np.trace(np.cov(y, rowvar=False))
    means = np.square(x.mean(axis=0) - y.mean(axis=0)).sum()
    assert frechet_distance(x, y) == pytest.approx(means + traces - 2 * root)


def test_fid_needs_no_more_pictures_than_features_to_be_exact() -> None:
    x, y = np.array([[0.0, 0, 0, 0], [2, 0, 0, 0]]), np.array([[0.0, 0, 0, 0], [0, 2, 0, 0]])
    # Means are √2 apart, each variance is 2 in a direction of its own.
    assert frechet_distance(x, y) == pytest.approx(2 + 2 + 2)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(x[:1], y) is None


def test_a_score_is_one_for_equal_predictions_and_the_number_of_classes_at_most() -> None:
    assert inception_score(np.full((40, 10), 0.1)) == (pytest.approx(1), 1)
    assert inception_score(np.tile([0.7, 0.2, 0.1], (40, 1))) == (pytest.approx(1), 1)
    assert inception_score(np.eye(10).repeat(4, axis=0)) == (pytest.approx(10), 1)
    assert inception_score(np.ones((1, 1))) == (None, 1)


@pytest.mark.parametrize(("count", "splits"), [(2, 1), (99, 1), (100, 2), (499, 9), (500, 10), (5000, 10)])
def test_few_pictures_have_fewer_splits(count: int, splits: int) -> None:
    assert inception_score(np.full((count, 4), 0.25)) == (pytest.approx(1), splits)


def test_pictures_are_at_no_distance_from_themselves(weights: PublishedWeights) -> None:
    reals = [drawn_pair(seed) for seed in range(3)]
    found = measure_published(weights, reals, candidates(reals))
    assert found["fid"] == pytest.approx(0, abs=1e-3)
    assert found["is"] == pytest.approx(1, abs=0.5)
    assert found["ic_lpips"] is None
    note = str(found["note"])
    assert "FID of 3 against 3 real pictures, biased upwards" in note
    assert "Inception Score over 1 split of 3 pictures" in note
    assert "IC-LPIPS not measured" in note
    assert "alex.pth is not the published file" in note


def test_other_pictures_are_at_some_distance(weights: PublishedWeights) -> None:
    reals, made = [drawn_pair(seed) for seed in range(2)], candidates([drawn_pair(seed) for seed in range(10, 15)])
    found = measure_published(weights, reals, made)
    assert isinstance(found["fid"], float)
    assert found["fid"] > 0.01
    assert isinstance(found["ic_lpips"], float)
    assert found["ic_lpips"] > 0


def test_what_has_no_weights_has_no_number(files: tuple[Path, Path, Path]) -> None:
    reals = [drawn_pair(0)]
    seeing, perceiving = load_published(files[0], None, None), load_published(None, *files[1:])
    assert seeing is not None
    assert perceiving is not None
    found = measure_published(seeing, reals, candidates([drawn_pair(1)]))
    assert (found["is"], found["fid"], found["ic_lpips"]) == (None, None, None)
    assert "FID not measured: fewer than 2" in str(found["note"])
    assert "IC-LPIPS not measured: weights missing" in str(found["note"])
    found = measure_published(perceiving, reals, candidates([drawn_pair(1), drawn_pair(2)]))
    assert (found["is"], found["fid"]) == (None, None)
    assert isinstance(found["ic_lpips"], float)
    assert "Inception Score and FID not measured: weights missing" in str(found["note"])


def test_without_files_there_is_nothing_and_half_of_lpips_is_refused(files: tuple[Path, Path, Path]) -> None:
    assert load_published(None, None, None) is None
    for one in ((files[1], None), (None, files[2])):
        with pytest.raises(UsageError, match="LPIPS needs two files"):
            load_published(None, *one)


def test_every_wrong_file_is_named(files: tuple[Path, Path, Path]) -> None:
    with pytest.raises(UsageError) as caught:
        load_published(files[1], files[1], files[0])
    assert "alex.pth is not of TensorFlow's Inception-v3" in str(caught.value)
    assert "inception.pth is not of torchvision's AlexNet" in str(caught.value)


def test_an_evaluation_records_the_numbers_and_the_files(
    weights: PublishedWeights, tiny_base: Path, tmp_path: Path
) -> None:
    data = read_evaluation_data(write_photographs(tmp_path / "tiles"))
    profile = replace(TINY, rows=("copy-paste",), seeds=(0,), steps=1)
    plain = EvaluationRequest(data, profile, load_base(str(tiny_base)), MaskNetworks(None, None))
    named = replace(plain, published=weights)
    hashes = {role: file.sha256 for role, file in weights.files.items()}
    assert named.identity() == plain.identity() | {"weights": hashes}
    result = [item for item in evaluate(named, tmp_path / "work") if isinstance(item, dict)][-1]
    found = result["rows"][0]["seeds"][0]["fidelity"]["blot"]["published"]
    assert found["is"] >= 1
    assert found["fid"] > 0
    assert {role: file["sha256"] for role, file in result["weights"].items()} == hashes
    assert not any(file["official"] for file in result["weights"].values())
