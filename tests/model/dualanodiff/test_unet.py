"""The two-branch U-Net against diffusers' own, and its symmetries."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from model.diffusion.base import Base, load_base
from model.dualanodiff.model import DualAnoDiffModel, build_model
from model.dualanodiff.unet import ANOMALY, ForwardOptions
from service.core.options.dualanodiff import TrainingConfig
from tests.support.tiny_data import awaken, tiny_config

PAIRS = 3


@pytest.fixture(scope="module")
def base(tiny_base: Path) -> Base:
    return load_base(str(tiny_base))


def built(base: Base, *, awake: bool = False, **chosen: object) -> DualAnoDiffModel:
    model = build_model(base, tiny_config(**chosen), "metal tile", "crack")
    if awake:
        awaken(model)
    model.denoiser.eval()
    return model


def inputs(model: DualAnoDiffModel, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Noisy latents, a timestep per pair, and the prompts."""
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn((2, PAIRS, 4, 8, 8), generator=generator)
    timesteps = torch.randint(1000, (PAIRS,), generator=generator)
    return latents, timesteps, model.prompt_embeddings().expand(-1, PAIRS, -1, -1)


@pytest.mark.parametrize("folder", ["tiny_base", "tiny_v_base"])
@pytest.mark.parametrize("targets", ["attention", "all"])
@torch.no_grad()
def test_fresh_adapters_leave_the_base_as_it_is(folder: str, targets: str, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(folder)
    reference = UNet2DConditionModel.from_pretrained(path, subfolder="unet").eval()
    model = built(load_base(str(path)), lora_targets=targets)
    latents, timesteps, text = inputs(model)
    output = model.denoiser(latents, timesteps, text)
    for branch in (0, 1):
        plain = reference(latents[branch], timesteps, text[branch]).sample
        torch.testing.assert_close(output[branch], plain, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_released_codes_start_disturbs_the_base(base: Base) -> None:
    model, fresh = built(base, reference_init=True), built(base)
    disturbed, undisturbed = model.denoiser(*inputs(model)), fresh.denoiser(*inputs(fresh))
    assert (disturbed - undisturbed).abs().mean() > 1e-3


@pytest.mark.parametrize("targets", ["attention", "all"])
@torch.no_grad()
def test_swapping_branches_and_their_adapters_swaps_the_outputs(base: Base, targets: str) -> None:
    model = built(base, awake=True, lora_targets=targets)
    latents, timesteps, text = inputs(model)
    output = model.denoiser(latents, timesteps, text)
    for joined in model.denoiser.lora.values():
        joined.data.copy_(joined.data.flip(0))
    swapped = model.denoiser(latents.flip(0), timesteps, text.flip(0))
    torch.testing.assert_close(swapped, output.flip(0), atol=1e-5, rtol=1e-4)
    assert (output[0] - output[1]).abs().mean() > 1e-3


@torch.no_grad()
def test_the_branches_meet_in_saim_alone(base: Base) -> None:
    model = built(base, awake=True)
    latents, timesteps, text = inputs(model)
    changed = torch.stack([latents[0], -latents[1]])
    together, apart = ForwardOptions(), ForwardOptions(interact=False)
    with_one, with_other = (model.denoiser(x, timesteps, text, together)[0] for x in (latents, changed))
    assert (with_one - with_other).abs().mean() > 1e-4
    alone, still_alone = (model.denoiser(x, timesteps, text, apart)[0] for x in (latents, changed))
    torch.testing.assert_close(alone, still_alone, atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_without_saim_each_branch_is_its_own_network(base: Base) -> None:
    model = built(base, awake=True, saim=False)
    assert not model.denoiser.interaction
    latents, timesteps, text = inputs(model)
    output = model.denoiser(latents, timesteps, text)
    for branch in (0, 1):
        alone = latents.clone()
        alone[1 - branch] = torch.randn(alone[branch].shape, generator=torch.Generator().manual_seed(7))
        torch.testing.assert_close(model.denoiser(alone, timesteps, text)[branch], output[branch], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(
        output, model.denoiser(latents, timesteps, text, ForwardOptions(interact=False)), atol=1e-6, rtol=1e-6
    )


@torch.no_grad()
def test_pairs_of_a_batch_do_not_meet(base: Base) -> None:
    model = built(base, awake=True)
    latents, timesteps, text = inputs(model)
    output = model.denoiser(latents, timesteps, text)
    for pair in range(PAIRS):
        one = slice(pair, pair + 1)
        torch.testing.assert_close(
            model.denoiser(latents[:, one], timesteps[one], text[:, one]), output[:, one], atol=1e-5, rtol=1e-4
        )


@torch.no_grad()
def test_one_timestep_stands_for_all_pairs(base: Base) -> None:
    model = built(base)
    latents, _, text = inputs(model)
    scalar, every = torch.tensor(321), torch.full((PAIRS,), 321)
    assert torch.equal(model.denoiser(latents, scalar, text), model.denoiser(latents, every, text))


@pytest.fixture
def compensated(base: Base) -> tuple[DualAnoDiffModel, dict[str, Tensor]]:
    """A model with BCM, and the features of one background per pair."""
    model = built(base, awake=True, bcm=True)
    latents, timesteps, text = inputs(model, seed=1)
    with torch.no_grad():
        return model, model.denoiser.background_features(latents[0], timesteps, text[0])


def test_backgrounds_are_kept_where_self_attention_begins(
    compensated: tuple[DualAnoDiffModel, dict[str, Tensor]],
) -> None:
    model, features = compensated
    config: TrainingConfig = model.config
    assert config.bcm
    assert features.keys() == {name for name, _ in model.base.unet.named_modules() if name.endswith("attn1")}
    assert {tuple(value.shape) for value in features.values()} == {(PAIRS, 64, 32), (PAIRS, 16, 64)}


@torch.no_grad()
def test_a_background_without_gamma_is_none(compensated: tuple[DualAnoDiffModel, dict[str, Tensor]]) -> None:
    model, features = compensated
    for name, parameter in model.denoiser.named_parameters():
        if name.endswith(".gamma"):
            parameter.zero_()
    latents, timesteps, text = inputs(model)
    with_background = model.denoiser(latents, timesteps, text, ForwardOptions(background=features))
    assert torch.equal(with_background, model.denoiser(latents, timesteps, text))


@torch.no_grad()
def test_a_background_reaches_the_global_branch_and_through_saim_the_other(
    base: Base, compensated: tuple[DualAnoDiffModel, dict[str, Tensor]]
) -> None:
    model, features = compensated
    latents, timesteps, text = inputs(model)
    change = model.denoiser(latents, timesteps, text, ForwardOptions(background=features))
    change -= model.denoiser(latents, timesteps, text)
    assert (change.abs().amax((1, 2, 3, 4)) > 1e-4).all()

    without_saim = built(base, bcm=True)
    run = ForwardOptions(background=features)
    change = without_saim.denoiser(latents, timesteps, text, run) - without_saim.denoiser(latents, timesteps, text)
    assert change[0].abs().max() > 1e-4
    assert not change[1].any()


@torch.no_grad()
def test_one_background_shared_by_all_pairs_equals_one_for_each(
    compensated: tuple[DualAnoDiffModel, dict[str, Tensor]],
) -> None:
    model, features = compensated
    latents, timesteps, text = inputs(model)
    shared = {name: value[:1] for name, value in features.items()}
    each = {name: value[:1].expand(PAIRS, -1, -1) for name, value in features.items()}
    torch.testing.assert_close(
        model.denoiser(latents, timesteps, text, ForwardOptions(background=shared)),
        model.denoiser(latents, timesteps, text, ForwardOptions(background=each)),
        atol=1e-6,
        rtol=1e-5,
    )


@torch.no_grad()
def test_backgrounds_know_nothing_of_saim_and_the_anomaly_branch(
    compensated: tuple[DualAnoDiffModel, dict[str, Tensor]],
) -> None:
    model, features = compensated
    for name, parameter in model.denoiser.named_parameters():
        if name.startswith("interaction.") or f".{ANOMALY}." in name:
            parameter.add_(1)
    latents, timesteps, text = inputs(model, seed=1)
    again = model.denoiser.background_features(latents[0], timesteps, text[0])
    assert all(torch.equal(again[name], value) for name, value in features.items())


@torch.no_grad()
def test_attention_maps_are_the_anomaly_branchs_and_change_nothing(base: Base) -> None:
    model = built(base, awake=True)
    latents, timesteps, text = inputs(model)
    maps: list[Tensor] = []
    output = model.denoiser(latents, timesteps, text, ForwardOptions(attention_maps=maps))
    assert torch.equal(output, model.denoiser(latents, timesteps, text))
    crosses = [module for name, module in model.base.unet.named_modules() if name.endswith("attn2")]
    assert len(maps) == len(crosses)
    assert {(len(layer), layer.shape[-1]) for layer in maps} == {(PAIRS, text.shape[2])}
    for layer in maps:
        torch.testing.assert_close(layer.sum(-1), torch.ones(layer.shape[:-1]))
