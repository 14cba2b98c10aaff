from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model.diffusion.base import Base, load_base
from model.dualanodiff.model import DualAnoDiffModel, build_model
from model.dualanodiff.unet import ANOMALY, GLOBAL
from tests.support.tiny_data import awaken, tiny_config


@pytest.fixture
def base(tiny_base: Path) -> Base:
    return load_base(str(tiny_base))


def predictions(model: DualAnoDiffModel) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn((2, 2, 4, 8, 8), generator=generator)
    text = model.prompt_embeddings().expand(-1, 2, -1, -1)
    output: Tensor = model.denoiser(latents, torch.tensor([100, 700]), text)
    return output


def gradients(model: DualAnoDiffModel, loss_of: Callable[[Tensor], Tensor]) -> dict[str, float]:
    """Name → largest gradient of each weight that got one."""
    loss_of(predictions(model)).backward()
    parts = {"denoiser": model.denoiser, "text_encoder": model.text_encoder}
    return {
        f"{part}.{name}": float(weight.grad.abs().max())
        for part, network in parts.items()
        for name, weight in network.named_parameters()
        if weight.grad is not None
    }


@pytest.mark.parametrize("targets", ["attention", "all"])
def test_only_adapters_learn(base: Base, targets: str) -> None:
    model = build_model(base, tiny_config(lora_targets=targets, bcm=True), "metal tile", "crack")
    kinds = ("denoiser.lora.", "lora_A", "lora_B", "denoiser.interaction.", "denoiser.background.")
    assert model.trainable()
    assert all(any(kind in name for kind in kinds) for name in model.trainable())
    own = {id(weight) for weight in (*model.lora_parameters(), *model.interaction_parameters())}
    assert own == {id(weight) for weight in model.trainable().values()}
    for part in (base.unet, base.vae, base.text_encoder):
        assert not any(weight.requires_grad for weight in part.parameters())


def test_without_a_rank_the_text_encoder_stays_as_it_is(base: Base) -> None:
    model = build_model(base, tiny_config(text_rank=0), "metal tile", "crack")
    assert not any(name.startswith("text_encoder.") for name in model.trainable())


def test_lora_sits_on_what_the_paper_names(base: Base) -> None:
    model = build_model(base, tiny_config(), "metal tile", "crack")
    attentions = [name for name, _ in base.unet.named_modules() if name.endswith(("attn1", "attn2"))]
    found = {name.partition(".lora_A.")[0] for name, _ in model.denoiser.unet.named_parameters() if ".lora_A." in name}
    assert found == {f"{name}.{target}" for name in attentions for target in ("to_q", "to_k", "to_v", "to_out.0")}


def test_the_base_is_shared_and_unchanged(base: Base) -> None:
    before = {name: weight.clone() for name, weight in base.unet.state_dict().items()}
    first = build_model(base, tiny_config(), "metal tile", "crack")
    awaken(first)
    second = build_model(base, tiny_config(), "metal tile", "crack")
    fresh = predictions(second).detach()
    awaken(first, seed=1)
    assert torch.equal(predictions(second), fresh)
    assert base.unet.state_dict().keys() == before.keys()
    assert all(torch.equal(weight, before[name]) for name, weight in base.unet.state_dict().items())
    addresses = [
        {weight.data_ptr() for name, weight in model.denoiser.unet.named_parameters() if "lora_" not in name}
        for model in (first, second)
    ]
    assert addresses[0] == addresses[1] == {weight.data_ptr() for weight in base.unet.parameters()}


def test_each_branch_goes_through_its_own_adapter(base: Base) -> None:
    model = build_model(base, tiny_config(), "metal tile", "crack")
    before = predictions(model).detach()
    for name, weight in model.denoiser.named_parameters():
        if f".{ANOMALY}." in name:
            weight.data += 0.1
    after = predictions(model).detach()
    assert torch.equal(after[0], before[0])
    assert (after[1] - before[1]).abs().mean() > 1e-3


@pytest.mark.parametrize("branch", [0, 1])
def test_a_branchs_error_teaches_its_own_adapter_alone(base: Base, branch: int) -> None:
    """While SAIM still adds nothing, the branches are apart in the backward pass too."""
    model = build_model(base, tiny_config(), "metal tile", "crack")
    predictions(model)[branch].square().mean().backward()
    for name, joined in model.denoiser.lora.items():
        moved = joined.grad.flatten(1).abs().amax(1)
        assert not moved[1 - branch], name
        assert bool(moved[branch]) == name.endswith("/B"), name  # A moves once B does


def test_peft_sees_what_is_trained(base: Base) -> None:
    model = build_model(base, tiny_config(lora_targets="all"), "metal tile", "crack")
    awaken(model)
    lora = model.denoiser.lora
    for name in {key.rpartition("/")[0] for key in lora}:
        layer = model.denoiser.unet.get_submodule(name.replace("/", "."))
        for kind, matrices in (("A", layer.lora_A), ("B", layer.lora_B)):
            joined = lora[f"{name}/{kind}"]
            for branch, own in zip((GLOBAL, ANOMALY), joined, strict=True):
                assert matrices[branch].weight.data_ptr() == own.data_ptr(), name
                assert torch.equal(matrices[branch].weight, own)


@pytest.mark.parametrize("targets", ["attention", "all"])
def test_once_awake_everything_trainable_learns_and_nothing_else(base: Base, targets: str) -> None:
    model = build_model(base, tiny_config(lora_targets=targets), "metal tile", "crack")
    awaken(model)
    moved = gradients(model, lambda output: output.square().mean())
    assert moved.keys() == model.trainable().keys()
    assert all(size > 1e-12 for size in moved.values())
