"""Sight of the mask: what the U-Net is shown, that it begins as the base's, and where a base's start leads."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from model.anomalydiffusion.adapter import load_adapter, save_adapter
from model.anomalydiffusion.inpainting import shown_channels
from model.anomalydiffusion.model import build_model, unet_for_sampling
from model.anomalydiffusion.start import save_start, take_start
from model.anomalydiffusion.words import known_tokens
from model.diffusion.base import FILLING, Base, load_base
from tests.support.tiny_anomaly import awaken, sampled, tiny_adapter, tiny_config


@pytest.fixture(scope="module")
def base(tiny_base: Path) -> Base:
    return load_base(str(tiny_base))


def square(side: int, start: int = 8, stop: int = 12) -> torch.Tensor:
    mask = torch.zeros(1, 1, side, side)
    mask[..., start:stop, start:stop] = 1
    return mask


def test_every_pixel_of_the_mask_is_shown_and_no_latent_inside_it() -> None:
    mask, latents = square(32, 9, 12), torch.randn(1, 4, 8, 8)
    shown = shown_channels(latents, mask)
    pixels, cells, surroundings = shown.split([16, 1, 4], dim=1)
    assert torch.equal(torch.nn.functional.pixel_shuffle(pixels, 4), 2 * mask - 1)
    assert cells.sum() == 1
    assert cells[0, 0, 2, 2] == 1
    assert torch.equal(surroundings, latents * (1 - cells))


def test_sight_of_the_mask_changes_nothing_before_training(base: Base) -> None:
    plain = build_model(base, tiny_config(), ["crack"])
    seeing = build_model(base, tiny_config(inpainting=True), ["crack"])
    mask, noisy = square(seeing.config.resolution), torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        text = plain.text(torch.tensor([0]), mask)
        seen = torch.cat([noisy, shown_channels(noisy, mask)], dim=1)
        assert torch.equal(seeing.unet(seen, 500, text).sample, plain.unet(noisy, 500, text).sample)
    new = set(seeing.trainable()) - set(plain.trainable())
    assert {"unet.conv_in.shown.weight", "unet.conv_in.shown.bias"} <= new
    assert all(name.startswith("unet.conv_in.") for name in new)
    assert sum(len(parameters) for parameters, _ in seeing.groups()) == len(seeing.trainable())


def test_the_sampling_unet_sees_as_the_trained_one_does(base: Base) -> None:
    model = tiny_adapter(base, inpainting=True).model
    mask, noisy = square(model.config.resolution), torch.randn(1, 4, 8, 8)
    seen = torch.cat([noisy, shown_channels(noisy, mask)], dim=1)
    with torch.no_grad():
        text = model.text(torch.tensor([0]), mask)
        found = unet_for_sampling(model, torch.float32)(seen, 500, text).sample
        torch.testing.assert_close(found, model.unet(seen, 500, text).sample, rtol=1e-4, atol=1e-5)
        elsewhere = torch.cat([noisy, shown_channels(noisy, square(model.config.resolution, 20, 24))], dim=1)
        assert not torch.allclose(model.unet(elsewhere, 500, text).sample, found)


def test_an_adapter_that_sees_masks_comes_back_and_draws_the_same(base: Base, tmp_path: Path) -> None:
    adapter = tiny_adapter(base, inpainting=True)
    save_adapter(tmp_path / "adapter", adapter)
    assert (tmp_path / "adapter" / "inpainting.safetensors").is_file()
    loaded = load_adapter(tmp_path / "adapter", base)
    (before,), (after,) = sampled(adapter, 0, 1), sampled(loaded, 0, 1)
    assert (before.image == after.image).all()


def test_candidates_of_any_batch_are_the_same_with_sight_of_masks(base: Base) -> None:
    adapter = tiny_adapter(base, inpainting=True)
    together, alone = sampled(adapter, 0, 4, batch=4), sampled(adapter, 3, 4, batch=1)
    assert (together[3].image == alone[0].image).all()


def started(base: Base, path: Path) -> Base:
    """A base with a start that was learned, as it seems."""
    model = build_model(base, tiny_config(inpainting=True), ["anomaly"])
    awaken(model)
    save_start(path, model, torch.full((4, model.embeddings.vectors.shape[-1]), 0.25))
    return replace(base, filling=load_file(path))


def test_adapters_begin_where_the_base_left_off(base: Base, tmp_path: Path) -> None:
    begun = started(base, tmp_path / "fill.safetensors")
    model = build_model(begun, tiny_config(inpainting=True), ["crack", "0815"])
    assert take_start(model)
    assert begun.filling is not None
    assert model.shown is not None
    torch.testing.assert_close(model.shown.weight, begun.filling["inpainting.weight"].float())
    lora = {name: value for name, value in model.unet.state_dict().items() if "lora_B" in name}
    assert all(value.abs().sum() > 0 for value in lora.values())
    table = base.text_encoder.get_input_embeddings().weight
    (crack,) = known_tokens(base.tokenizer, "crack")
    (anomaly,) = known_tokens(base.tokenizer, "anomaly")
    assert torch.equal(model.embeddings.vectors[0], (table[crack] + 0.25).expand(4, -1))
    assert torch.equal(model.embeddings.vectors[1], (table[anomaly] + 0.25).expand(4, -1))


@pytest.mark.parametrize("chosen", [{"fill_rank": 3}, {"fill_rank": 0}, {"inpainting": False}, {"spatial": False}])
def test_a_start_that_does_not_suit_the_settings_is_left_alone(
    base: Base, tmp_path: Path, chosen: dict[str, object]
) -> None:
    begun = started(base, tmp_path / "fill.safetensors")
    model = build_model(begun, tiny_config(**{"inpainting": True, **chosen}), ["crack"])
    before = {name: value.clone() for name, value in model.trainable().items()}
    assert not take_start(model)
    assert all(torch.equal(value, before[name]) for name, value in model.trainable().items())


def test_a_start_is_loaded_with_its_base_and_does_not_change_which_base_it_is(base: Base, tmp_path: Path) -> None:
    """So adapters of before the base had one can still be used."""
    folder = tmp_path / "base"
    shutil.copytree(base.folder, folder)
    (folder / FILLING).parent.mkdir()
    start = started(base, folder / FILLING).filling
    loaded = load_base(str(folder))
    assert loaded.digest == base.digest
    assert start is not None
    assert loaded.filling is not None
    assert loaded.filling.keys() == start.keys()
