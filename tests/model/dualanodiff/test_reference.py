"""The plain form in the benchmarks computes what the library computes, to within rounding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bench.training import draws_of_step
from model.diffusion.base import load_base
from model.diffusion.vae import encode
from model.dualanodiff.adapter import DualAnoDiffAdapter
from model.dualanodiff.latent_dataset import LatentDataset
from model.dualanodiff.model import build_model
from model.dualanodiff.reference import (
    SCHEDULER,
    ReferenceDenoiser,
    reference_latents,
    reference_loss,
    reference_pair,
)
from model.dualanodiff.sampling.sampler import prepare_sampling, sample_pairs
from model.dualanodiff.trainer import training_loss
from model.runtime.seeding import draw_noise, pair_seed, step_generator
from service.core.options.common import MaskMethod
from service.core.options.dualanodiff import SamplingConfig
from tests.support.tiny_data import tiny_adapter

TARGETS = ("attention", "all")


@pytest.fixture(scope="module", params=TARGETS)
def adapter(request: pytest.FixtureRequest, tiny_base: Path) -> DualAnoDiffAdapter:
    return tiny_adapter(load_base(str(tiny_base)), lora_targets=request.param)


@torch.no_grad()
def test_a_pass_predicts_the_same(adapter: DualAnoDiffAdapter) -> None:
    model = adapter.model
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn((2, 3, 4, 8, 8), generator=generator)
    timesteps = torch.tensor([3, 500, 999])
    text = model.prompt_embeddings().expand(-1, 3, -1, -1)
    ours = model.denoiser(latents, timesteps, text)
    torch.testing.assert_close(ReferenceDenoiser(model)(latents, timesteps, text), ours, atol=1e-5, rtol=1e-5)
    # Otherwise both could be the bare base.
    fresh = build_model(model.base, model.config, "metal tile", "crack").denoiser.eval()
    assert (fresh(latents, timesteps, text) - ours).abs().mean() > 0.01


def test_guidance_takes_one_pass_of_two_rows_per_branch(adapter: DualAnoDiffAdapter) -> None:
    denoiser, rows = ReferenceDenoiser(adapter.model), []
    denoiser.unet.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    reference_latents(adapter.model, denoiser, draw_noise(0, (2, 4, 8, 8)), 3, 2.5, SCHEDULER)
    assert rows == [4, 4, 4]


@pytest.mark.parametrize("scheduler", ["DDIMScheduler", "dpmsolver++"])
def test_pairs_are_the_same_but_for_rounding(adapter: DualAnoDiffAdapter, scheduler: str) -> None:
    config = SamplingConfig(steps=4, batch=2, scheduler=scheduler, mask_method=MaskMethod.THRESHOLD)
    denoiser = ReferenceDenoiser(adapter.model)
    for candidate in sample_pairs(prepare_sampling(adapter, config), 0, 2):
        noise = draw_noise(pair_seed(config.seed, candidate.index), (2, 4, 8, 8))
        latents = reference_latents(adapter.model, denoiser, noise, 4, config.guidance_scale, scheduler)
        plain = reference_pair(adapter, latents)
        for ours, theirs in ((candidate.image, plain.image), (candidate.part, plain.part)):
            assert np.abs(ours.astype(int) - theirs).max() <= 1
            assert ours.std() > 1


def test_a_training_step_has_the_same_loss_and_gradients(adapter: DualAnoDiffAdapter) -> None:
    model = adapter.model
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand((2, 3, 3, 32, 32), generator=generator) * 2 - 1
    bank = LatentDataset(torch.stack([encode(model.vae, images) for images in pixels]), torch.zeros(3, 1, 8, 8), None)
    drawn = draws_of_step(model, bank, step_generator(0, 0))
    ours = training_loss(model, bank, step_generator(0, 0))
    denoiser = ReferenceDenoiser(model)
    theirs = reference_loss(model, denoiser, pixels[:, drawn.chosen], drawn.timesteps, drawn.noise)
    torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=1e-3)
    found = torch.autograd.grad(ours, list(model.trainable().values()))
    plain = torch.autograd.grad(theirs, denoiser.trained())
    # The plain form trains one matrix per branch.
    joined = len(model.denoiser.lora)
    apart = [torch.stack(each) for each in zip(plain[: 2 * joined : 2], plain[1 : 2 * joined : 2], strict=True)]
    for own, other in zip(found, [*apart, *plain[2 * joined :]], strict=True):
        torch.testing.assert_close(other, own, atol=1e-5, rtol=1e-3)
