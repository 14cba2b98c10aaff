"""Matches the contrast of drawn defects to that of the real ones.

A model that cannot tell a defect's brightness from its surroundings predicts the mean of what it has seen, and blending
with the normal at every step keeps what is drawn near it: defects of a small base are fainter than real ones. How much
fainter depends on the defect, from not at all (a break through which the tray shows) to half (cracks in asphalt). So a
few candidates are drawn after training, and the scale that pushes them away from the normal is chosen by them.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import replace

import numpy as np

from model.anomalydiffusion.adapter import AnomalyDiffusionAdapter
from model.anomalydiffusion.config import resolve_sampling
from model.anomalydiffusion.sampling.sampler import FilledPair, prepare_sampling
from model.data.placement import NormalImage
from model.masks.u2net import U2Net
from model.quality.visibility import contrast
from model.runtime.progress import Meter, Progress
from model.types import Candidate, Pair
from service.core.options.anomalydiffusion import AnomalySamplingConfig
from service.core.options.quality import QualityLimits

CANDIDATES = 6
"""Candidates drawn at each scale."""

TRIED, LARGEST, STEP = 1.25, 1.5, 0.05
"""The second scale that is tried, the largest that is chosen, and what it is rounded to."""

SEED = 999_983
"""Of the candidates; no job's."""


def match_contrast(
    adapter: AnomalyDiffusionAdapter,
    pairs: Sequence[Pair],
    normals: Sequence[NormalImage],
    object_net: U2Net | None,
) -> Generator[Progress, None, float]:
    """Draw candidates and compare them with the real pairs; returns the scale, from 1 to `LARGEST`.

    The more visible half of each decides, since drawn masks may lie where a defect hardly shows. The logarithm of
    visibility grows about linearly with the scale, so two scales tell which one is needed.
    """
    wanted = visibility(pairs)
    meter = Meter("match contrast", 2 * CANDIDATES, "candidates")
    options = {"seed": SEED, "batch": CANDIDATES, "precision": adapter.model.config.precision}
    settings = resolve_sampling(adapter.base, options, has_normals=True)
    found = []
    for scale in (1.0, TRIED):
        config = replace(settings, normal_guidance=scale)
        found.append(visibility(_drawn(adapter, config, normals, object_net)))
        yield meter.report(len(found) * CANDIDATES)
        if found[0] >= wanted or not found[0]:
            return 1.0
    growth = math.log(max(found[1] / found[0], 1.01)) / (TRIED - 1)
    scale = 1 + math.log(wanted / found[0]) / growth
    return min(LARGEST, round(round(scale / STEP) * STEP, 2))


def _drawn(
    adapter: AnomalyDiffusionAdapter,
    config: AnomalySamplingConfig,
    normals: Sequence[NormalImage],
    object_net: U2Net | None,
) -> list[Candidate]:
    sampler = prepare_sampling(adapter, config, normals=normals, object_net=object_net)
    return [item.to_candidate() for item in sampler.decoded(0, CANDIDATES) if isinstance(item, FilledPair)]


def visibility(pairs: Sequence[Pair] | Sequence[Candidate]) -> float:
    """Return the median contrast of the more visible half, grey levels; 0 without any defect."""
    ring = QualityLimits().ring
    found = sorted(math.hypot(*contrast(pair.image, pair.mask, ring)) for pair in pairs if pair.mask.any())
    return float(np.median(found[len(found) // 2 :])) if found else 0.0
