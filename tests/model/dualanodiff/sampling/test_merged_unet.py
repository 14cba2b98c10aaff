"""What is merged for sampling against what was trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from model.diffusion.base import Base, load_base
from model.dualanodiff.model import DualAnoDiffModel, build_model
from model.dualanodiff.sampling.merged_unet import merge_for_sampling
from model.dualanodiff.unet import ForwardOptions
from tests.support.tiny_data import awaken, tiny_config

PAIRS = 3


@pytest.fixture(scope="module")
def base(tiny_base: Path) -> Base:
    return load_base(str(tiny_base))


def trained(base: Base, **chosen: object) -> DualAnoDiffModel:
    model = build_model(base, tiny_config(**chosen), "metal tile", "crack")
    awaken(model)
    model.denoiser.eval()
    return model


def inputs(model: DualAnoDiffModel) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn((2, PAIRS, 4, 8, 8), generator=generator)
    return latents, torch.tensor(321), model.prompt_embeddings().expand(-1, PAIRS, -1, -1)


@pytest.mark.parametrize("options", [{}, {"lora_targets": "all"}, {"saim": False}])
@torch.no_grad()
def test_merged_and_folded_it_predicts_the_same(base: Base, options: dict[str, object]) -> None:
    model = trained(base, **options)
    merged = merge_for_sampling(model.denoiser, base.unet)
    expected = model.denoiser(*inputs(model))
    torch.testing.assert_close(merged(*inputs(model)), expected, atol=1e-5, rtol=1e-5)
    # Otherwise both could be the bare base.
    fresh = build_model(base, model.config, "metal tile", "crack").denoiser.eval()
    assert (fresh(*inputs(model)) - expected).abs().mean() > 0.01


@torch.no_grad()
def test_backgrounds_are_injected_as_before(base: Base) -> None:
    model = trained(base, bcm=True)
    merged = merge_for_sampling(model.denoiser, base.unet)
    latents, timesteps, text = inputs(model)
    behind = torch.randn(latents[0].shape, generator=torch.Generator().manual_seed(1))
    outputs = []
    for denoiser in (model.denoiser, merged):
        features = denoiser.background_features(behind, timesteps, text[0])
        outputs.append(denoiser(latents, timesteps, text, ForwardOptions(background=features)))
    torch.testing.assert_close(outputs[1], outputs[0], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_attention_maps_are_the_same(base: Base) -> None:
    model = trained(base)
    maps: list[list[Tensor]] = [[], []]
    for denoiser, found in zip((model.denoiser, merge_for_sampling(model.denoiser, base.unet)), maps, strict=True):
        denoiser(*inputs(model), ForwardOptions(attention_maps=found))
    torch.testing.assert_close(maps[1], maps[0], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_merging_leaves_base_and_adapter_as_they_are(base: Base) -> None:
    model = trained(base)
    networks = (base.unet, model.denoiser)
    before = [{name: value.clone() for name, value in network.state_dict().items()} for network in networks]
    merged = merge_for_sampling(model.denoiser, base.unet, torch.bfloat16)
    assert {parameter.dtype for parameter in merged.parameters()} == {torch.bfloat16}
    merged(*inputs(model))
    for network, values in zip(networks, before, strict=True):
        after = network.state_dict()
        assert after.keys() == values.keys()
        assert all(torch.equal(after[name], value) for name, value in values.items())


@torch.no_grad()
def test_in_bf16_it_is_as_close_as_bf16_can_be(base: Base) -> None:
    model = trained(base)
    expected = model.denoiser(*inputs(model))
    output = merge_for_sampling(model.denoiser, base.unet, torch.bfloat16)(*inputs(model)).float()
    assert (output - expected).norm() < 0.03 * expected.norm()
