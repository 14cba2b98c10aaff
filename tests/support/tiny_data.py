"""Few-shot pairs, settings and networks that suit the tiny base."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model.data.placement import NormalImage
from model.diffusion.base import Base
from model.dualanodiff.adapter import DualAnoDiffAdapter, make_card, make_references
from model.dualanodiff.model import DualAnoDiffModel, build_model
from model.dualanodiff.trainer import train as train_adapter_model
from model.dualanodiff.unet import TwoBranchUNet
from model.export.dataset import DatasetSummary
from model.generation import dataset
from model.generation.counts import Counts
from model.generation.request import GenerationRequest
from model.masks.networks import MaskNetworks
from model.masks.u2net import PLAIN, U2Net, uniform
from model.method import TrainingRequest
from model.runtime.progress import Progress
from model.training.early_stopping import TrainingResult
from model.types import ImageArray, Pair
from service.core.options.dualanodiff import SamplingConfig, TrainingConfig
from service.core.options.quality import QualityLimits
from tests.support.tiny_base import PIXEL_SIZE

TINY = TrainingConfig(
    steps=4,
    batch=2,
    rank=2,
    text_rank=2,
    lr=1e-3,
    interaction_lr=1e-3,
    resolution=PIXEL_SIZE,
    views=3,
    mask_steps=0,
    checkpoint_every=2,
)

PERMISSIVE = QualityLimits(
    min_area_ratio=0.0,
    max_area_ratio=1e9,
    min_width_ratio=0.0,
    max_width_ratio=1e9,
    full_area=2.0,
    border_ratio=1e9,
    min_border_share=1.0,
    max_cut_share=1.0,
    max_off_object=1.0,
    max_disagreement=255.0,
    min_visibility_ratio=0.0,
    min_visibility=0.0,
    max_unlikeness=1e9,
    min_change_ratio=0.0,
    min_change_inside=0.0,
    max_ledge=1e9,
    defect_copy=2.0,
    scene_copy=2.0,
    accepted_copy=2.0,
)
"""Only an empty mask is rejected: the tiny base's weights are random, and so is what it draws."""


def tiny_config(**chosen: Any) -> TrainingConfig:
    return replace(TINY, **chosen)


def surface(seed: int, height: int = 48, width: int = 40) -> ImageArray:
    """Brushed brass, never twice the same."""
    rng = np.random.default_rng(seed)
    light = 150 + 12 * rng.standard_normal((1, width)) + 5 * rng.standard_normal((height, width))
    return np.clip(light[..., None] * (1.2, 1.0, 0.7), 0, 255).astype(np.uint8)


def drawn_pair(seed: int, height: int = 48, width: int = 40) -> Pair:
    """A dark oval blot on a surface."""
    rng = np.random.default_rng([seed, 1])
    rows, columns = np.mgrid[:height, :width]
    row, column = rng.uniform(0.3, 0.7, 2) * (height, width)
    tall, wide = rng.uniform(0.1, 0.18, 2) * min(height, width)
    mask = ((rows - row) / tall) ** 2 + ((columns - column) / wide) ** 2 < 1
    image = surface(seed, height, width)
    image[mask] = image[mask] // 3
    return Pair(f"blot{seed}", image, mask)


def drawn_normal(seed: int, height: int = 56, width: int = 44) -> NormalImage:
    return NormalImage(f"good{seed}", surface(1000 + seed, height, width))


def tiny_u2net(seed: int = 0) -> U2Net:
    torch.manual_seed(seed)
    return U2Net(uniform(2, 4), PLAIN).eval()


def half_seeing_u2net() -> U2Net:
    """Finds something in about half of the pixels of a picture of 32 × 32."""
    net = tiny_u2net()
    with torch.no_grad():
        net.outconv.bias -= net(torch.zeros(1, 3, 32, 32))[0].median()
    return net


def awaken(network: DualAnoDiffModel | TwoBranchUNet, scale: float = 0.05, seed: int = 0) -> None:
    """Move every trainable weight off its neutral start, as if it had been trained."""
    parameters = network.trainable().values() if isinstance(network, DualAnoDiffModel) else network.parameters()
    generator = torch.Generator().manual_seed(seed)
    for parameter in parameters:
        if parameter.requires_grad:
            parameter.data += scale * torch.randn(parameter.shape, generator=generator)


def tiny_adapter(base: Base, **chosen: Any) -> DualAnoDiffAdapter:
    """As loaded from a folder, with weights as if it had been trained."""
    config = tiny_config(**chosen)
    model = build_model(base, config, "metal tile", "crack")
    awaken(model)
    model.denoiser.eval()
    model.text_encoder.eval()
    pairs = [drawn_pair(seed) for seed in range(2)]
    references, placements = make_references(pairs, config)
    result = TrainingResult([], config.steps, config.steps)
    card = make_card(model, pairs, placements, result, names=("metal tile", "crack"))
    return DualAnoDiffAdapter(model, card, None, references, placements)


def train(model: DualAnoDiffModel, *args: Any, **options: Any) -> Iterator[Progress | TrainingResult]:
    """Train a bare model, without card and references."""
    return train_adapter_model(DualAnoDiffAdapter(model, {}, None, [], []), *args, **options)


def training_request(
    base: Base, pairs: list[Pair], config: TrainingConfig, networks: MaskNetworks, normals: Sequence[NormalImage] = ()
) -> TrainingRequest[TrainingConfig]:
    return TrainingRequest(base, pairs, config, "metal tile", "crack", networks, normals=normals)


def make_dataset(
    adapter: DualAnoDiffAdapter,
    config: SamplingConfig,
    num_pairs: int,
    target: Path,
    *,
    counts: Counts | None = None,
    force: bool = False,
    **asked: Any,
) -> Iterator[Progress | DatasetSummary]:
    """`model.generation.dataset.make_dataset` of a request that is written in one line."""
    request = GenerationRequest(adapter, config, num_pairs, **asked)
    return dataset.make_dataset(request, target, counts=counts, force=force)


def last(items: Iterable[Any]) -> Any:
    """Run a job to its end."""
    final = None
    for item in items:
        final = item
    return final
