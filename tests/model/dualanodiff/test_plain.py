"""The plain algorithm against every shortcut: gradients, losses and pictures are the same with a switch off and on."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from model.diffusion.base import Base, load_base
from model.dualanodiff.adapter import DualAnoDiffAdapter
from model.dualanodiff.bcm import product_masks
from model.dualanodiff.latent_dataset import LatentDataset, cut_crops, encode_crops
from model.dualanodiff.loss import training_loss
from model.dualanodiff.model import build_model
from model.dualanodiff.sampling.sampler import prepare_sampling, sample_pairs
from model.runtime import switches
from model.runtime.progress import Progress
from model.runtime.seeding import step_generator
from model.runtime.switches import Switch
from model.training.early_stopping import TrainingResult
from model.types import Candidate
from service.core.options.common import MaskMethod
from service.core.options.dualanodiff import SamplingConfig
from tests.support.tiny_data import (
    awaken,
    drawn_normal,
    drawn_pair,
    half_seeing_u2net,
    last,
    tiny_adapter,
    tiny_config,
    tiny_u2net,
    train,
)

PAIRS = [drawn_pair(0, 48, 40), drawn_pair(1, 33, 90)]
NORMALS = [drawn_normal(0), drawn_normal(1, 40, 70)]
ALL = tuple(Switch)

# Relative distance of the gradients of all weights together.
GRADIENTS = {"fp32": 1e-4, "bf16": 0.05}
LOSSES = {"fp32": 1e-4, "bf16": 0.02}


@pytest.fixture(scope="module")
def base(tiny_base: Path) -> Base:
    return load_base(str(tiny_base))


def ended(job: Any) -> LatentDataset:
    while True:
        try:
            next(job)
        except StopIteration as end:
            return end.value


def learned(base: Base, precision: str) -> tuple[float, Tensor]:
    """The loss of a batch, and its gradients in one row."""
    model = build_model(base, tiny_config(bcm=True, lora_targets="all", precision=precision), "metal tile", "crack")
    awaken(model)
    products = product_masks(PAIRS, half_seeing_u2net())
    dataset = ended(encode_crops(base, cut_crops(PAIRS, model.config, products)))
    loss = training_loss(model, dataset, step_generator(0, 0))
    gradients = torch.autograd.grad(loss, list(model.trainable().values()))
    return float(loss.detach()), torch.cat([each.flatten() for each in gradients])


@pytest.fixture(scope="module")
def learned_fast(base: Base) -> Callable[[str], tuple[float, Tensor]]:
    return cache(lambda precision: learned(base, precision))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "off",
    [(Switch.FUSED_LORA,), (Switch.FUSED_SAIM,), (Switch.FUSED_ATTENTION,), (Switch.FUSED_NORM,), ALL],
    ids=["fused_lora", "fused_saim", "fused_attention", "fused_norm", "all"],
)
def test_a_step_of_training_has_the_same_loss_and_gradients(
    base: Base, learned_fast: Callable[[str], tuple[float, Tensor]], off: tuple[Switch, ...], precision: str
) -> None:
    loss, gradients = learned_fast(precision)
    with switches.plain(*off):
        plain_loss, plain_gradients = learned(base, precision)
    assert loss == pytest.approx(plain_loss, rel=LOSSES[precision])
    assert (gradients - plain_gradients).norm() < GRADIENTS[precision] * plain_gradients.norm()


def trained(base: Base, workspace: Path, **chosen: Any) -> tuple[DualAnoDiffAdapter, TrainingResult]:
    adapter = tiny_adapter(base, steps=10, text_rank=0, checkpoint_every=100, **chosen)
    result = last(train(adapter.model, PAIRS, workspace, object_net=tiny_u2net()))
    adapter.model.denoiser.eval()
    return adapter, result


@pytest.mark.parametrize("off", [Switch.FUSED_ADAM, Switch.KEPT_PROMPTS])
def test_a_training_learns_the_same_weights(base: Base, tmp_path: Path, off: Switch) -> None:
    adapter, _ = trained(base, tmp_path / "fast")
    with switches.plain(off):
        plain, _ = trained(base, tmp_path / "plain")
    for name, weight in plain.model.trainable().items():
        torch.testing.assert_close(adapter.model.trainable()[name], weight, atol=1e-5, rtol=1e-4)


CONFIG = SamplingConfig(steps=3, batch=3, mask_method=MaskMethod.THRESHOLD, anchored=True, precision="fp32")


def drawn(adapter: DualAnoDiffAdapter, config: SamplingConfig = CONFIG) -> list[Candidate]:
    ready = prepare_sampling(adapter, config, normals=NORMALS, object_net=half_seeing_u2net())
    return [each for each in sample_pairs(ready, 0, 4) if not isinstance(each, Progress)]


def furthest(one: list[Candidate], other: list[Candidate]) -> int:
    """Grey levels between the two most different pixels of images and parts."""
    assert [each.index for each in one] == [each.index for each in other]
    pictures = [(a, b) for x, y in zip(one, other, strict=True) for a, b in ((x.image, y.image), (x.part, y.part))]
    return max(int(np.abs(a.astype(int) - b).max()) for a, b in pictures)


@pytest.fixture(scope="module")
def adapter(base: Base) -> DualAnoDiffAdapter:
    return tiny_adapter(base, bcm=True)


@pytest.fixture(scope="module")
def drawn_fast(adapter: DualAnoDiffAdapter) -> list[Candidate]:
    return drawn(adapter)


@pytest.mark.parametrize(
    "off",
    [
        (Switch.MERGED_UNET,),
        (Switch.FUSED_SAIM,),
        (Switch.FUSED_NORM,),
        (Switch.FIXED_BATCHES,),
        (Switch.FOLDED_U2NET,),
        ALL,
    ],
    ids=["merged_unet", "fused_saim", "fused_norm", "fixed_batches", "folded_u2net", "all"],
)
def test_sampled_pictures_differ_by_a_grey_level_at_most(
    adapter: DualAnoDiffAdapter, drawn_fast: list[Candidate], off: tuple[Switch, ...]
) -> None:
    with switches.plain(*off):
        assert furthest(drawn_fast, drawn(adapter)) <= 1


@pytest.mark.parametrize("off", [Switch.KEPT_FEATURES, Switch.OVERLAPPED])
def test_sampled_pictures_are_the_same_to_the_bit(
    adapter: DualAnoDiffAdapter, drawn_fast: list[Candidate], off: Switch
) -> None:
    with switches.plain(off):
        assert furthest(drawn_fast, drawn(adapter)) == 0


def test_the_plain_algorithm_runs_from_photographs_to_pictures(base: Base, tmp_path: Path) -> None:
    adapter, result = trained(base, tmp_path / "fast", bcm=True)
    fast = drawn(adapter)
    with switches.plain():
        plain_adapter, plain_result = trained(base, tmp_path / "plain", bcm=True)
        plain = drawn(plain_adapter)
    assert [step for step, _ in result.curve] == [step for step, _ in plain_result.curve] == [5, 10]
    assert [loss for _, loss in result.curve] == pytest.approx([loss for _, loss in plain_result.curve], rel=1e-3)
    assert furthest(fast, plain) <= 2
