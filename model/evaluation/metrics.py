"""Measures detectors on held-out photographs: how well pixels and whole images are told apart.

AUROC, average precision and F1 come from the counts of false and true positives at every threshold. The per-region
overlap (PRO) is that of Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 2021, section 4.3; regions are
those of `scipy.ndimage.label` with 8 neighbours.

All of them depend only on the order of the scores. Up to `EXACT` pixels the order is exact, and torchmetrics counts.
Beyond that, which torchmetrics would sort for seconds, probabilities are divided into `GRADES` equal steps of their
logit, so that the many small ones stay apart, and those within a step (4 · 10⁻⁵) count as equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from model.types import MaskArray
from service.core.errors import UsageError

Map = NDArray[np.float32]
"""`(H, W)`, each pixel's probability of being defective, in [0, 1]."""

PRO_LIMIT = 0.3
"""Largest false-positive rate of the integral over regions' overlap (Bergmann et al. 2021)."""

EXACT = GRADES = 1 << 20
_LOGITS = (-24.0, 17.0)
"""The probabilities next to 0 and 1 in float32 that a sigmoid returns lie inside."""

CURVE_POINTS = 100

_Grades = NDArray[np.int32]
"""`(N,)`, 0 to `GRADES - 1`, ascending and equal as the scores are."""


def require_metrics() -> None:
    """Refuse to go on without torchmetrics, which is an extra.

    Raises:
        UsageError: it is not installed.
    """
    if find_spec("torchmetrics") is None:
        raise UsageError("the metrics need torchmetrics, which is not installed: pip install 'pairforge[evaluate]'")


def measure(
    maps: Sequence[Map], masks: Sequence[MaskArray], image_scores: Sequence[float], image_labels: Sequence[bool]
) -> dict[str, float | None]:
    """Measure a detector; every number is in [0, 1], and None where it is not defined.

    A metric needs defective and good pixels, or images.

    Args:
        maps: probabilities per photograph.
        masks: `(H, W)` bool per photograph, of its map's size; nothing is marked on good parts.
        image_scores: one score per photograph, in [0, 1].
        image_labels: whether the photograph is defective.
    """
    pixels = _counts(_grades([part.reshape(-1) for part in maps]), _flat(masks))
    images = _counts(_grades([np.asarray(image_scores, np.float32)]), np.asarray(image_labels, np.bool_))
    return {
        **{f"pixel_{name}": value for name, value in _ranked(pixels).items()},
        "pro": _region_overlap(pixels, masks),
        **{f"image_{name}": value for name, value in _ranked(images).items()},
    }


def precision_recall(maps: Sequence[Map], masks: Sequence[MaskArray]) -> dict[str, list[float]]:
    """Return the precision-recall curve of the pixels at 100 points of evenly spaced recall, from 0 to 1.

    Each is the curve's point with the smallest recall that reaches it. Without defective or good pixels it is empty.
    """
    counts = _counts(_grades([pixels.reshape(-1) for pixels in maps]), _flat(masks))
    if counts is None:
        return {"recall": [], "precision": []}
    false, true = counts.false, counts.true
    wanted = np.linspace(0, true[-1], CURVE_POINTS)
    places = np.searchsorted(true[1:], wanted) + 1
    return {
        "recall": (true[places] / true[-1]).tolist(),
        "precision": (true[places] / (true[places] + false[places])).tolist(),
    }


def _flat(masks: Sequence[MaskArray]) -> MaskArray:
    return np.concatenate([mask.reshape(-1) for mask in masks]) if masks else np.zeros(0, np.bool_)


def _grades(scores: Sequence[Map]) -> _Grades:
    count = sum(part.size for part in scores)
    if count <= EXACT:
        values = np.concatenate(scores) if scores else np.zeros(0, np.float32)
        return np.unique(values, return_inverse=True)[1].astype(np.int32)
    low, high = _LOGITS
    result = np.empty(count, np.int32)
    start = 0
    for part in scores:
        with np.errstate(divide="ignore"):
            logits = np.log(part) - np.log1p(-part)
        steps = (logits.clip(low, high) - low) / (high - low) * (GRADES - 1)
        result[start : start + part.size] = np.rint(steps)
        start += part.size
    return result


@dataclass(frozen=True, slots=True)
class _Counts:
    """False and true positives at every threshold, from above the greatest grade down to the least.

    Attributes:
        false, true: `(T + 1,)`, from 0 to all.
        thresholds: `(T,)`, the grades that occur, descending.
        defective: grades of what is true, in order.
    """

    false: NDArray[np.float64]
    true: NDArray[np.float64]
    thresholds: NDArray[np.int64]
    defective: _Grades


def _ranked(counts: _Counts | None) -> dict[str, float | None]:
    """Measure how well grades tell true from false: AUROC, average precision, greatest F1."""
    if counts is None:
        return {"auroc": None, "ap": None, "f1": None}
    false, true = counts.false, counts.true
    recall, precision = true / true[-1], true[1:] / (true[1:] + false[1:])
    # F1 = 2 TP / (2 TP + FP + FN) is the harmonic mean of precision and recall.
    f1 = 2 * true / (true + false + true[-1])
    return {
        "auroc": float(np.trapezoid(recall, false / false[-1])),
        "ap": float(np.sum(np.diff(recall) * precision)),
        "f1": float(f1.max()),
    }


def _counts(grades: _Grades, truth: MaskArray) -> _Counts | None:
    """Count at every threshold; None where nothing or everything is true."""
    if truth.all() or not truth.any():
        return None
    defective = grades[truth]
    if truth.size > EXACT:
        bad = np.bincount(defective, minlength=GRADES)
        good = np.bincount(grades, minlength=GRADES) - bad
        thresholds = np.flatnonzero((good > 0) | (bad > 0))[::-1]
        false, true = (np.append(0.0, np.cumsum(part[thresholds])) for part in (good, bad))
        return _Counts(false, true, thresholds, defective)
    require_metrics()
    from torchmetrics.functional.classification import binary_roc

    # In float32 in [0, 1), which torchmetrics takes as they are, grades stay distinct.
    scores, labels = torch.from_numpy(grades).float() / GRADES, torch.from_numpy(truth.view(np.uint8))
    false_rate, true_rate, _ = binary_roc(scores, labels, validate_args=False)
    positives = int(truth.sum())
    return _Counts(
        np.rint(false_rate.double().numpy() * (truth.size - positives)),
        np.rint(true_rate.double().numpy() * positives),
        np.arange(grades.max() + 1)[::-1],
        defective,
    )


def _region_overlap(counts: _Counts | None, masks: Sequence[MaskArray]) -> float | None:
    """Integrate the mean share of each defect region that is found, over false-positive rates up to `PRO_LIMIT`.

    The integral is divided by the limit, so that 1 is perfect.
    """
    if counts is None:
        return None
    shares = []
    for mask in masks:
        if mask.any():
            labels, count = ndimage.label(mask, np.ones((3, 3)))
            inside = labels[mask]
            shares.append(1 / np.bincount(inside, minlength=count + 1)[inside])
    overlap = np.bincount(counts.defective, weights=np.concatenate(shares), minlength=counts.thresholds[0] + 1)
    found = np.append(0, np.cumsum(overlap[counts.thresholds]))
    rate, found = counts.false / counts.false[-1], found / found[-1]
    below = rate <= PRO_LIMIT
    rates = np.append(rate[below], PRO_LIMIT)
    overlaps = np.append(found[below], np.interp(PRO_LIMIT, rate, found))
    return float(np.clip(np.trapezoid(overlaps, rates) / PRO_LIMIT, 0, 1))
