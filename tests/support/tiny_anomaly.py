"""AnomalyDiffusion on a tiny base: settings, adapters as if they had been trained, and what they draw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from model.anomalydiffusion.adapter import AnomalyDiffusionAdapter, RealMask, make_card
from model.anomalydiffusion.model import AnomalyDiffusionModel, build_model
from model.anomalydiffusion.sampling.sampler import prepare_sampling
from model.data.placement import NormalImage
from model.data.references import make_references
from model.diffusion.base import Base
from model.masks.networks import MaskNetworks
from model.method import DefectType, TrainingRequest
from model.runtime.progress import Progress
from model.training.early_stopping import TrainingResult
from model.types import Candidate, Pair
from service.core.options.anomalydiffusion import AnomalySamplingConfig, AnomalyTrainingConfig
from tests.support.tiny_base import PIXEL_SIZE
from tests.support.tiny_data import drawn_normal, drawn_pair

TINY: dict[str, Any] = {
    "steps": 4,
    "early_stop": False,
    "batch": 2,
    "views": 3,
    "view": "window",
    "resolution": PIXEL_SIZE,
    "fill_rank": 2,
    "lr": 1e-3,
    "checkpoint_every": 2,
}


def tiny_config(**chosen: Any) -> AnomalyTrainingConfig:
    return AnomalyTrainingConfig(**{**TINY, **chosen})


def awaken(model: AnomalyDiffusionModel, scale: float = 0.05) -> None:
    """Move every trained weight off its start, as if it had been trained."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.trainable().values():
        parameter.data += scale * torch.randn(parameter.shape, generator=generator)


def tiny_adapter(base: Base, types: Sequence[str] = ("crack",), **chosen: Any) -> AnomalyDiffusionAdapter:
    """As loaded from a folder, with weights as if it had been trained."""
    config = tiny_config(**chosen)
    model = build_model(base, config, types)
    awaken(model)
    model.networks().eval().requires_grad_(False)
    pairs = [drawn_pair(seed) for seed in range(2 * len(types))]
    numbers = [number // 2 for number in range(len(pairs))]
    references, placements = make_references(pairs, config.view, config.resolution, config.seed)
    card = make_card(model, pairs, numbers, placements, TrainingResult([], 4, 4), "metal tile")
    masks = [RealMask(kind, pair.mask) for kind, pair in zip(numbers, pairs, strict=True)]
    return AnomalyDiffusionAdapter(model, card, masks, references, placements)


def tiny_request(base: Base, pairs: list[Pair], *others: DefectType, **chosen: Any) -> TrainingRequest[Any]:
    return TrainingRequest(
        base,
        pairs,
        tiny_config(**chosen),
        "metal tile",
        "crack",
        MaskNetworks(None, None),
        method="anomalydiffusion",
        others=others,
    )


NORMALS = [drawn_normal(seed) for seed in range(2)]


def sampled(
    adapter: AnomalyDiffusionAdapter,
    start: int,
    stop: int,
    normals: Sequence[NormalImage] = NORMALS,
    *,
    places: Any = None,
    object_net: Any = None,
    **chosen: Any,
) -> list[Candidate]:
    config = AnomalySamplingConfig(**{"steps": 2, "batch": 2, "guidance_scale": 1.0, **chosen})
    sampler = prepare_sampling(adapter, config, normals=normals, places=places, object_net=object_net)
    return [item.to_candidate() for item in sampler.decoded(start, stop) if not isinstance(item, Progress)]
