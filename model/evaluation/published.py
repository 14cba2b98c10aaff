"""Inception Score, FID and IC-LPIPS as published, on weights that the user names; without them there is no number.

They look at whole pictures, as in the publications, not at what lies within a mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model.evaluation.inception import FEATURES, Inception, Vectors, load_inception
from model.evaluation.lpips import LARGEST_CLUSTER, Lpips, cluster_diversity, load_lpips
from model.evaluation.weights import file_hash
from model.types import Candidate, ImageArray, Pair
from service.core.errors import UsageError

SPLITS = 10
"""Of the Inception Score, as published."""

SMALLEST_SPLIT = 50
"""Pictures; the published ones have 5 000 each."""

MISSING = "not measured: weights missing"
TOO_FEW = "not measured: fewer than 2 pictures on a side"

OFFICIAL = {
    "inception": ("6726825d",),
    "lpips": ("df73285e", "a78928a0"),
    "network": ("7be5be79", "4df8aa71", "397923af"),
}
"""How sha256 begins: pt_inception-2015-12-05; LPIPS 0.1 on AlexNet, on VGG-16; torchvision's AlexNet, twice, VGG-16."""


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A file of weights.

    Attributes:
        official: whether it is the published one, by its hash; the same weights in another format are not.
    """

    file: str
    sha256: str
    official: bool

    @classmethod
    def of(cls, path: Path, role: str) -> NamedFile:
        digest = file_hash(path)
        return cls(path.name, digest, digest.startswith(OFFICIAL[role]))


@dataclass(frozen=True, slots=True)
class PublishedWeights:
    """The networks that the user named; None for those that were not.

    Attributes:
        files: by `inception`, `lpips` and `network`, the one under LPIPS.
    """

    inception: Inception | None
    lpips: Lpips | None
    files: dict[str, NamedFile]

    @property
    def hashes(self) -> dict[str, str]:
        """Return what decides the numbers."""
        return {role: file.sha256 for role, file in self.files.items()}

    def as_dict(self) -> dict[str, Any]:
        """Return the files as JSON."""
        return {role: asdict(file) for role, file in self.files.items()}


def load_published(
    inception: Path | None, lpips: Path | None, network: Path | None, device: str = "cpu"
) -> PublishedWeights | None:
    """Load the networks of the named files; None if none was named.

    Args:
        inception: TensorFlow's Inception-v3, see `model.evaluation.inception`.
        lpips, network: weights of LPIPS and the network they belong to, see `model.evaluation.lpips`.

    Raises:
        UsageError: a file holds other weights, or only one of the last two was named.
    """
    problems: list[str] = []
    seeing = perceiving = None
    try:
        seeing = load_inception(inception).to(device) if inception else None
    except UsageError as error:
        problems += error.problems
    try:
        perceiving = _load_lpips(lpips, network, device)
    except UsageError as error:
        problems += error.problems
    if problems:
        raise UsageError(problems, "the weights cannot be used")
    named = {"inception": inception, "lpips": lpips, "network": network}
    files = {role: NamedFile.of(path, role) for role, path in named.items() if path}
    return PublishedWeights(seeing, perceiving, files) if files else None


def _load_lpips(weights: Path | None, network: Path | None, device: str) -> Lpips | None:
    if weights is None and network is None:
        return None
    if weights is None or network is None:
        raise UsageError(
            "LPIPS needs two files: its own weights (alex.pth or vgg.pth; torchmetrics installs both in its folder "
            "functional/image/lpips_models) and torchvision's network that they belong to"
        )
    return load_lpips(weights, network).to(device)


def measure_published(
    weights: PublishedWeights, reals: Sequence[Pair], pairs: Sequence[Candidate]
) -> dict[str, float | str | None]:
    """Measure the generated pairs of one defect type; what cannot be measured is None, with the reason in the note.

    Args:
        reals: the real pairs they were learnt from, at least one.
        pairs: at least one.
    """
    real, made = [pair.image for pair in reals], [pair.image for pair in pairs]
    numbers: dict[str, float | None] = {"is": None, "fid": None, "ic_lpips": None}
    notes = [f"Inception Score and FID {MISSING}", f"IC-LPIPS {MISSING}"]
    if weights.inception is not None:
        numbers["is"], numbers["fid"], notes[0] = _on_inception(weights.inception, real, made)
    if weights.lpips is not None:
        numbers["ic_lpips"], notes[1] = _on_lpips(weights.lpips, real, made)
    notes += [
        f"{each.file} is not the published file, judged by its hash"
        for each in weights.files.values()
        if not each.official
    ]
    return {**numbers, "note": "; ".join(notes)}


def _on_inception(
    inception: Inception, reals: Sequence[ImageArray], made: Sequence[ImageArray]
) -> tuple[float | None, float | None, str]:
    features, predictions = inception.describe(made)
    score, splits = inception_score(predictions)
    distance = frechet_distance(features, inception.describe(reals)[0])
    few, size = min(len(reals), len(made)), f"FID of {len(made)} against {len(reals)} real pictures"
    bias = f", biased upwards: {FEATURES} features need more pictures" if few <= FEATURES else ""
    told = f"Inception Score over {splits} split{'s' if splits > 1 else ''} of {len(made)} pictures"
    notes = [
        told if score is not None else f"Inception Score {TOO_FEW}",
        f"{size}{bias}" if distance is not None else f"FID {TOO_FEW}",
    ]
    return score, distance, "; ".join(notes)


def _on_lpips(lpips: Lpips, reals: Sequence[ImageArray], made: Sequence[ImageArray]) -> tuple[float | None, str]:
    found = cluster_diversity(lpips, reals, made)
    if found.mean is None:
        return None, "IC-LPIPS not measured: no real picture is the nearest of two generated ones"
    around = f"{found.clusters} of {len(reals)} real pictures"
    return found.mean, f"IC-LPIPS on {found.network} around {around}, at most {LARGEST_CLUSTER} generated ones each"


def frechet_distance(x: Vectors, y: Vectors) -> float | None:
    """Return `|μx − μy|² + tr(Σx + Σy − 2(ΣxΣy)^½)` (Heusel et al. 2017, eq. 6); None with fewer than two on a side.

    With Σx = AᵀA and Σy = BᵀB, the trace of (ΣxΣy)^½ is the sum of the singular values of ABᵀ, exact for singular Σ.

    Args:
        x, y: features, `(N, D)` and `(M, D)`.
    """
    if min(len(x), len(y)) < 2:
        return None
    a, b = _root(x), _root(y)
    common = float(np.linalg.svd(a @ b.T, compute_uv=False).sum())
    means = float(np.square(x.mean(axis=0) - y.mean(axis=0)).sum())
    return max(means + float(np.square(a).sum() + np.square(b).sum()) - 2 * common, 0.0)


def _root(features: Vectors) -> Vectors:
    """Return A with AᵀA the covariance, of no more than D rows."""
    centred = (features - features.mean(axis=0)) / np.sqrt(len(features) - 1)
    return centred if len(centred) <= centred.shape[1] else np.linalg.qr(centred).R


def inception_score(predictions: Vectors) -> tuple[float | None, int]:
    """Return the mean over splits of exp E KL(p(y|x) ‖ p(y)) (Salimans et al. 2016) and the number of splits.

    Splits are consecutive, ten as published, fewer where a split had less than 50 pictures; the score is None for
    fewer than two pictures. It cannot exceed the number of pictures of a split.

    Args:
        predictions: probabilities, `(N, C)`.
    """
    splits = max(1, min(SPLITS, len(predictions) // SMALLEST_SPLIT))
    if len(predictions) < 2:
        return None, splits
    return float(np.mean([_score(part) for part in np.array_split(predictions, splits)])), splits


def _score(predictions: Vectors) -> float:
    total = predictions.mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(predictions > 0, predictions * np.log(predictions / total), 0.0)
    return float(np.exp(terms.sum(axis=1).mean()))
