"""A classifier that is trained on a few pairs tells types apart, the same for the same seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from model.evaluation.classification import (
    Classifier,
    ClassifierSettings,
    _batch,
    balanced_accuracy,
    classify,
    train_classifier,
)
from model.runtime.progress import Progress
from model.types import Pair
from service.core.errors import DivergedError, UsageError
from tests.support.tiny_data import last, surface

SMALL = ClassifierSettings(resolution=32, steps=40, batch=8, widths=(8, 16, 16, 16))


def marked(kind: str, seed: int) -> Pair:
    """A surface with a dark blot in the middle, or with a thin bright scratch across."""
    image, mask = surface(seed), np.zeros((48, 40), bool)
    if kind == "blot":
        mask[14:34, 10:30] = True
    else:
        mask[:, 19:22] = True
    image[mask] = 20 if kind == "blot" else 255
    return Pair(f"{kind}{seed}", image, mask)


FEW = {kind: [[marked(kind, seed) for seed in range(3)]] for kind in ("blot", "scratch")}
OTHERS = {"blot": [[marked("blot", seed)] for seed in range(10, 16)], "scratch": [[marked("scratch", 20)]]}


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return last(train_classifier(FEW, SMALL))


def test_a_classifier_that_diverges_is_no_result() -> None:
    with pytest.raises(DivergedError, match=r"(loss was|weights were).*: evaluate with another profile"):
        list(train_classifier(FEW, replace(SMALL, lr=1e30)))


def test_types_it_never_saw_photographs_of_are_told_apart(classifier: Classifier) -> None:
    assert balanced_accuracy(classifier, OTHERS) == 1


def test_types_count_the_same_however_many_parts_they_have(classifier: Classifier) -> None:
    swapped = {"blot": OTHERS["blot"], "scratch": OTHERS["blot"][:2]}
    assert balanced_accuracy(classifier, swapped) == pytest.approx(1 / 2)


def test_a_part_counts_once_however_many_photographs_show_it(classifier: Classifier) -> None:
    blots, (scratch,) = [part[0] for part in OTHERS["blot"]], OTHERS["scratch"]
    mixed = {"blot": [blots, scratch], "scratch": [scratch]}
    assert balanced_accuracy(classifier, mixed) == pytest.approx((1 / 2 + 1) / 2)


def test_a_small_group_is_drawn_from_as_often_as_a_large_one() -> None:
    black, white = (Pair("", np.full((32, 32, 3), level, np.uint8), np.ones((32, 32), bool)) for level in (60, 190))
    kinds = [[[white.image] * 30, [black.image]], [[white.image]]]
    pixels, types = _batch(kinds, 400, np.random.default_rng(0))
    first = pixels.mean((1, 2, 3))[types == 0]
    assert (first < 0).float().mean().item() == pytest.approx(0.5, abs=0.12)


def test_the_same_seed_trains_the_same_weights(classifier: Classifier) -> None:
    torch.rand(3)
    again = last(train_classifier(FEW, SMALL)).net.state_dict()
    other = last(train_classifier(FEW, ClassifierSettings(32, 40, 8, seed=1, widths=SMALL.widths))).net.state_dict()
    weights = classifier.net.state_dict()
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    assert any(not torch.equal(weights[name], other[name]) for name in weights)


def test_progress_is_reported_up_to_the_last_step() -> None:
    reports = [item for item in train_classifier(FEW, SMALL) if isinstance(item, Progress)]
    assert [(report.stage, report.completed, report.total) for report in reports] == [
        ("classify", 20, 40),
        ("classify", 40, 40),
    ]


def test_photographs_of_any_size_are_classified(classifier: Classifier) -> None:
    assert len(classify(classifier, [surface(1, 100, 30), surface(2, 8, 8)])) == 2


@pytest.mark.parametrize("pairs", [{}, {"blot": FEW["blot"]}, {"blot": FEW["blot"], "scratch": [[]]}])
def test_fewer_than_two_types_are_refused(pairs: dict[str, list[list[Pair]]]) -> None:
    with pytest.raises(UsageError, match="at least two"):
        next(train_classifier(pairs, SMALL))
