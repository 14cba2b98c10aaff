"""Metrics agree with their definitions, ties included, and large inputs with small ones."""

from __future__ import annotations

import sys
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from model.evaluation import metrics
from model.evaluation.metrics import Map, measure, precision_recall, require_metrics
from model.types import MaskArray
from service.core.errors import UsageError

pytest.importorskip("torchmetrics", reason="the extra pairforge[evaluate] is not installed")

Counts = list[tuple[float, float]]


def drawn(seed: int, levels: int | None = None) -> tuple[list[Map], list[MaskArray]]:
    """Three small photographs, the last without a defect, and maps that see the defects dimly."""
    rng = np.random.default_rng(seed)
    masks = [rng.random((9, 11)) < 0.15, rng.random((7, 8)) < 0.3, np.zeros((8, 8), bool)]
    maps = [np.clip(rng.random(mask.shape) * 0.7 + 0.3 * mask, 0, 1) for mask in masks]
    if levels:
        maps = [np.round(pixels * levels) / levels for pixels in maps]
    return [pixels.astype(np.float32) for pixels in maps], masks


def thresholds(scores: NDArray[np.float32]) -> list[float]:
    return sorted(set(scores.tolist()), reverse=True)


def curve(scores: NDArray[np.float32], truth: NDArray[np.bool_]) -> Counts:
    """(recall, precision) at every threshold from the highest down."""
    return [
        (float((truth & (scores >= t)).sum() / truth.sum()), float(truth[scores >= t].mean()))
        for t in thresholds(scores)
    ]


def expected(scores: NDArray[np.float32], truth: NDArray[np.bool_]) -> dict[str, float]:
    """AUROC as the chance that a positive outranks a negative, where a tie counts half; AP and F1 off the curve."""
    positive, negative = scores[truth][:, None], scores[~truth][None]
    steps = pairwise([(0.0, 1.0), *curve(scores, truth)])
    return {
        "auroc": float(((positive > negative) + 0.5 * (positive == negative)).mean()),
        "ap": sum((after[0] - before[0]) * after[1] for before, after in steps),
        "f1": max(2 * r * p / (r + p) if r + p else 0.0 for r, p in curve(scores, truth)),
    }


def expected_pro(maps: list[Map], masks: list[MaskArray]) -> float:
    good = np.concatenate([pixels[~mask] for pixels, mask in zip(maps, masks, strict=True)])
    regions = []
    for pixels, mask in zip(maps, masks, strict=True):
        labels, count = ndimage.label(mask, np.ones((3, 3)))
        regions += [pixels[labels == number] for number in range(1, count + 1)]
    points = [
        (float((good >= t).mean()), float(np.mean([(region >= t).mean() for region in regions])))
        for t in thresholds(np.concatenate([pixels.ravel() for pixels in maps]))
    ]
    area = 0.0
    for (x0, y0), (x1, y1) in pairwise([(0.0, 0.0), *points]):
        if x0 < 0.3 and x1 > x0:
            stop = min(x1, 0.3)
            area += (stop - x0) * (y0 + y0 + (y1 - y0) * (stop - x0) / (x1 - x0)) / 2
    return area / 0.3


@pytest.mark.parametrize("levels", [None, 20, 4, 1])
def test_pixels_are_measured_as_defined(levels: int | None) -> None:
    maps, masks = drawn(3, levels)
    scores = np.concatenate([pixels.ravel() for pixels in maps])
    wanted = expected(scores, np.concatenate([mask.ravel() for mask in masks]))
    found = measure(maps, masks, [0.5, 0.7, 0.2], [True, True, False])
    assert found == {
        **{f"pixel_{name}": pytest.approx(value, abs=1e-6) for name, value in wanted.items()},
        "pro": pytest.approx(expected_pro(maps, masks), abs=1e-6),
        "image_auroc": 1.0,
        "image_ap": 1.0,
        "image_f1": 1.0,
    }


def test_images_are_measured_as_defined() -> None:
    maps, masks = drawn(1)
    scores, labels = [0.9, 0.4, 0.4, 0.1], [True, False, True, False]
    found = measure(maps, masks, scores, labels)
    assert (found["image_auroc"], found["image_ap"], found["image_f1"]) == pytest.approx((0.875, 0.5 + 1 / 3, 0.8))


def test_a_perfect_map_is_worth_one() -> None:
    _, masks = drawn(5)
    perfect = measure([mask.astype(np.float32) for mask in masks], masks, [1, 1, 0], [True, True, False])
    assert set(perfect.values()) == {1.0}


def test_regions_count_alike_whatever_their_size() -> None:
    mask = np.zeros((20, 20), bool)
    mask[:10, :10] = mask[15, 15] = True
    large, small = np.zeros((20, 20), np.float32), np.zeros((20, 20), np.float32)
    large[:10, :10] = small[15, 15] = 1
    of_large, of_small = (measure([pixels], [mask], [1], [True])["pro"] for pixels in (large, small))
    assert of_large == pytest.approx(of_small)


def test_pixels_that_touch_at_a_corner_are_one_region() -> None:
    mask = np.eye(6, dtype=bool)
    half = np.where(np.arange(6)[:, None] < 3, mask, np.zeros((6, 6))).astype(np.float32)
    # Half of the one region is found without a mistake, the rest falls to the chance line: 0.5 + 0.5 · 0.3 / 2.
    assert measure([half], [mask], [1], [True])["pro"] == pytest.approx(0.575)


def test_what_is_not_defined_is_none() -> None:
    maps, masks = drawn(2)
    nothing = [np.zeros_like(mask) for mask in masks]
    assert set(measure(maps, nothing, [0.1, 0.2, 0.3], [False] * 3).values()) == {None}
    assert set(measure([], [], [], []).values()) == {None}
    assert precision_recall(maps, nothing) == {"recall": [], "precision": []}
    everything = measure(maps, [~mask for mask in nothing], [0.1, 0.2, 0.3], [True] * 3)
    assert set(everything.values()) == {None}


def test_the_drawn_curve_lies_on_the_measured_one() -> None:
    maps, masks = drawn(4)
    found = precision_recall(maps, masks)
    scores = np.concatenate([pixels.ravel() for pixels in maps])
    points = curve(scores, np.concatenate([mask.ravel() for mask in masks]))
    recalls, precisions = found["recall"], found["precision"]
    assert len(recalls) == len(precisions) == 100
    assert recalls == sorted(recalls)
    assert recalls[-1] == 1
    for recall, precision in zip(recalls, precisions, strict=True):
        assert any(abs(recall - r) < 1e-6 and abs(precision - p) < 1e-6 for r, p in points)


def test_grades_of_many_pixels_measure_as_their_exact_order(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    masks = [rng.random((64, 64)) < 0.05 for _ in range(6)]
    # Sure answers, most of them far below 10⁻⁶, some of them exactly 0 or 1.
    logits = [rng.normal(-16, 6, mask.shape) + 16 * mask for mask in masks]
    maps = [(1 / (1 + np.exp(-part))).astype(np.float32) for part in logits]
    maps[0][0, :2] = 0, 1
    exact = measure(maps, masks, [0.1] * 6, [True] * 6)
    monkeypatch.setattr(metrics, "EXACT", 0)
    graded = measure(maps, masks, [0.1] * 6, [True] * 6)
    assert graded == {name: value if value is None else pytest.approx(value, abs=1e-3) for name, value in exact.items()}


def test_without_torchmetrics_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    # None is Python's own entry for a module that cannot be imported.
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    with pytest.raises(UsageError, match=r"pip install 'pairforge\[evaluate\]'"):
        require_metrics()
