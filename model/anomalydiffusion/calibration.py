"""Matches the contrast of drawn defects to that of the real ones.

A model that cannot tell a defect's brightness from its surroundings predicts the mean of what it has seen, and blending
with the normal at every step keeps what is drawn near it: defects of a small base are fainter than real ones. How much
fainter depends on the defect, from not at all (a break through which the tray shows) to half (cracks in asphalt). So a
few candidates are drawn after training, and the scale that pushes them away from the normal is chosen by them.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence

import numpy as np

from model.anomalydiffusion.adapter import AnomalyDiffusionAdapter
from model.anomalydiffusion.config import resolve_sampling
from model.anomalydiffusion.sampling.sampler import FilledPair, prepare_sampling
from model.data.placement import NormalImage
from model.data.plan import plan_pairs
from model.masks.u2net import U2Net
from model.quality.visibility import contrast
from model.runtime.progress import Meter, Progress
from model.types import Candidate, Pair
from service.core.options.quality import QualityLimits

CANDIDATES = 6
"""Candidates of each type drawn at each scale."""

TRIED, LARGEST, STEP = 1.25, 1.5, 0.05
"""The second scale that is tried, the largest that is chosen, and what it is rounded to."""

SEED = 999_983
"""Of the candidates; no job's."""


def match_contrast(
    adapter: AnomalyDiffusionAdapter,
    pairs: Sequence[Pair],
    types: Sequence[int],
    normals: Sequence[NormalImage],
    object_net: U2Net | None,
) -> Generator[Progress, None, dict[str, float]]:
    """Draw candidates of each type and compare them with its real pairs; returns type → scale, from 1 to `LARGEST`.

    The more visible half of each decides, since drawn masks may lie where a defect hardly shows. The logarithm of
    visibility grows about linearly with the scale, so two scales tell which one is needed.

    Args:
        types: number of each pair's defect type.
    """
    names = adapter.model.types
    meter = Meter("match contrast", 2 * CANDIDATES * len(names), "candidates")
    scales = {}
    for kind, name in enumerate(names):
        wanted = visibility([pair for pair, own in zip(pairs, types, strict=True) if own == kind])
        found: list[float] = []
        for scale in (1.0, TRIED):
            if not found or 0 < found[0] < wanted:
                found.append(visibility(_drawn(adapter, name, scale, normals, object_net)))
            yield meter.report((2 * kind + 1 + (scale > 1)) * CANDIDATES)
        scales[name] = _scale(wanted, *found)
    return scales


def _scale(wanted: float, plain: float, pushed: float | None = None) -> float:
    """Return the scale at which defects are as visible as `wanted`, from their visibility at 1 and at `TRIED`."""
    if pushed is None:
        return 1.0
    growth = math.log(max(pushed / plain, 1.01)) / (TRIED - 1)
    scale = 1 + math.log(wanted / plain) / growth
    return min(LARGEST, round(round(scale / STEP) * STEP, 2))


def _drawn(
    adapter: AnomalyDiffusionAdapter,
    name: str,
    scale: float,
    normals: Sequence[NormalImage],
    object_net: U2Net | None,
) -> list[Candidate]:
    """Draw candidates of one type."""
    options = {
        "seed": SEED,
        "batch": CANDIDATES,
        "precision": adapter.model.config.precision,
        "normal_guidance": scale,
        "refine_strength": 0.0,  # a second pass begins with the contrast of the first
    }
    config = resolve_sampling(adapter.base, options, has_normals=True)
    types = adapter.model.types
    plan = plan_pairs(types, CANDIDATES, {name: CANDIDATES})
    sampler = prepare_sampling(adapter, config, normals=normals, object_net=object_net, plan=plan)
    return [item.to_candidate() for item in sampler.decoded(0, CANDIDATES) if isinstance(item, FilledPair)]


def visibility(pairs: Sequence[Pair] | Sequence[Candidate]) -> float:
    """Return the median contrast of the more visible half, grey levels; 0 without any defect."""
    ring = QualityLimits().ring
    found = sorted(math.hypot(*contrast(pair.image, pair.mask, ring)) for pair in pairs if pair.mask.any())
    return float(np.median(found[len(found) // 2 :])) if found else 0.0
