"""Measures generated pairs themselves, without a detector: likeness to real defects, diversity, what changed outside.

Likeness and diversity are of `model.evaluation.features`, of what lies within the mask. None of these numbers
says whether a detector gains by the pairs; they say why it may not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from model.evaluation.features import NETWORK, Features, Vectors, describe_defects
from model.evaluation.sharpness import inner_sharpness
from model.types import Candidate, ImageArray, Pair

KID_NAME = f"KID on {NETWORK} within the mask"
KERNEL_DEGREE = 3

BIT_IDENTICAL = "bit-identical"


@dataclass(frozen=True, slots=True)
class Fidelity:
    """What was measured on the pairs of one defect type.

    Attributes:
        nearest_real: mean over the pairs of the cosine likeness to the most similar real defect, at most 1.
        nearest_among_reals: the same of each real defect among the others, for scale; None with fewer than two.
        diversity: mean cosine distance between two pairs, 0 for copies; None with fewer than two.
        diversity_of_reals: the same between two real defects.
        diversity_against_reals: mean cosine distance between a pair and a real defect.
        kid: squared maximum mean discrepancy; None with fewer than two on either side. It has no bias, so that it may
            be negative; of a few photographs it is vague.
        kid_name: names the features, because values on others are not comparable.
        psnr_outside: likeness of the pixels outside the mask to the good part that the pair was made on, in decibels,
            of the mean squared error over all pairs whose good part is known; None without one, or without an error.
        psnr_note: why it is None, or of how many pairs it is.
        identical_outside: share of these pairs without any change outside the mask; None without any.
        sharpness: detail inside the mask against a ring outside it, over the same of the real defects: 1 for pairs as
            sharp and grainy as real ones, less for blurred ones; None where neither or only one can be measured.
        sharpness_of_reals: detail of the real defects inside the mask against a ring outside it.
        per_pair_nearest: likeness to the most similar real defect, pair by pair.
        nearest_index: that defect's position among the real ones.
    """

    nearest_real: float
    nearest_among_reals: float | None
    diversity: float | None
    diversity_of_reals: float | None
    diversity_against_reals: float
    kid: float | None
    kid_name: str
    psnr_outside: float | None
    psnr_note: str
    identical_outside: float | None
    sharpness: float | None
    sharpness_of_reals: float | None
    per_pair_nearest: list[float]
    nearest_index: list[int]

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers as JSON, without infinities."""
        return asdict(self)


def measure_fidelity(reals: Sequence[Pair], pairs: Sequence[Candidate], normals: Mapping[str, ImageArray]) -> Fidelity:
    """Measure the generated pairs of one defect type.

    Args:
        reals: the real pairs they were learnt from, at least one.
        pairs: at least one.
        normals: good parts by name, `(H, W, 3)` uint8.
    """
    real = describe_defects((each.image, each.mask) for each in reals)
    made = describe_defects((each.image, each.mask) for each in pairs)
    likeness = made.directions @ real.directions.T
    nearest = likeness.max(axis=1)
    psnr, note, identical = _psnr_outside(pairs, normals)
    detail, detail_of_reals = (inner_sharpness((each.image, each.mask) for each in group) for group in (pairs, reals))
    return Fidelity(
        nearest_real=float(nearest.mean()),
        nearest_among_reals=_nearest_among(real.directions),
        diversity=_diversity(made.directions),
        diversity_of_reals=_diversity(real.directions),
        diversity_against_reals=float(1 - likeness.mean()),
        kid=kernel_distance(made, real),
        kid_name=KID_NAME,
        psnr_outside=psnr,
        psnr_note=note,
        identical_outside=identical,
        sharpness=None if detail is None or detail_of_reals is None else detail / detail_of_reals,
        sharpness_of_reals=detail_of_reals,
        per_pair_nearest=[float(each) for each in nearest],
        nearest_index=[int(each) for each in likeness.argmax(axis=1)],
    )


def nearest_reals(reals: Sequence[Pair], pairs: Sequence[Candidate]) -> list[int]:
    """Return the position of the real defect that each pair is most like; there is at least one."""
    if not pairs:
        return []
    real, made = (describe_defects((each.image, each.mask) for each in group) for group in (reals, pairs))
    return [int(each) for each in (made.directions @ real.directions.T).argmax(axis=1)]


def kernel_distance(made: Features, real: Features) -> float | None:
    """Estimate the squared maximum mean discrepancy of the last layer's features; None with fewer than two on a side.

    The kernel is `k(x, y) = (x·y / d + 1)³`, as in the Kernel Inception Distance (Bińkowski et al. 2018, eq. 4). The
    published value is a mean over random subsets; over all subsets that mean is the estimate on everything, taken here.
    """
    x, y = made.last, real.last
    if min(len(x), len(y)) < 2:
        return None
    return float(_mean_of_others(_kernel(x, x)) + _mean_of_others(_kernel(y, y)) - 2 * _kernel(x, y).mean())


def _kernel(x: Vectors, y: Vectors) -> Vectors:
    return (x @ y.T / x.shape[1] + 1) ** KERNEL_DEGREE


def _mean_of_others(square: Vectors) -> float:
    """Return the mean off the diagonal of an `(N, N)` matrix, N ≥ 2."""
    return float((square.sum() - np.trace(square)) / (len(square) * (len(square) - 1)))


def _diversity(directions: Vectors) -> float | None:
    return 1 - _mean_of_others(directions @ directions.T) if len(directions) > 1 else None


def _nearest_among(directions: Vectors) -> float | None:
    if len(directions) < 2:
        return None
    likeness = directions @ directions.T
    np.fill_diagonal(likeness, -np.inf)
    return float(likeness.max(axis=1).mean())


def _psnr_outside(
    pairs: Sequence[Candidate], normals: Mapping[str, ImageArray]
) -> tuple[float | None, str, float | None]:
    """Return the decibels, a note, and the share of pairs without any error."""
    errors = []
    for pair in pairs:
        normal = normals.get(pair.normal) if pair.normal is not None else None
        if normal is not None and normal.shape == pair.image.shape and not pair.mask.all():
            outside = ~pair.mask
            errors.append(float(np.square(pair.image[outside].astype(float) - normal[outside]).mean()))
    if not errors:
        return None, "no pair was made on a known good part", None
    identical = sum(error == 0 for error in errors) / len(errors)
    if identical == 1:
        return None, BIT_IDENTICAL, identical
    return float(10 * np.log10(255**2 / np.mean(errors))), f"of {len(errors)} of {len(pairs)} pairs", identical
