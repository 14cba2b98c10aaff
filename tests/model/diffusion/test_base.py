"""What counts as a base: folders in diffusers' format, whole or sharded, in full or half precision."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file

from model.diffusion.base import Base, base_digest, load_base, locate_base
from model.dualanodiff.model import build_model
from service.core.errors import TransientError, UsageError
from tests.support.tiny_base import PIXEL_SIZE, build_tiny_base
from tests.support.tiny_data import tiny_config

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tiny_base: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(tiny_base, tmp_path / "base"))


def weights(base: Base) -> dict[str, torch.Tensor]:
    return {
        f"{part}.{name}": value
        for part in ("unet", "vae", "text_encoder")
        for name, value in getattr(base, part).state_dict().items()
    }


def equal(one: Base, other: Base, tolerance: float = 0.0) -> bool:
    ours, theirs = weights(one), weights(other)
    return ours.keys() == theirs.keys() and all(
        torch.allclose(ours[name].float(), theirs[name].float(), atol=tolerance, rtol=tolerance) for name in ours
    )


@pytest.mark.parametrize(("fixture", "predicts"), [("tiny_base", "epsilon"), ("tiny_v_base", "v_prediction")])
def test_everything_about_a_base_is_read_from_its_own_files(
    fixture: str, predicts: str, request: pytest.FixtureRequest
) -> None:
    base = load_base(str(request.getfixturevalue(fixture)))
    assert (base.resolution, base.factor, base.latent_channels) == (PIXEL_SIZE, 4, 4)
    assert base.scheduler["prediction_type"] == predicts
    assert (base.card, base.few_shot, base.sampling, base.interaction) == ({}, {}, {}, None)
    assert not any(network.training for network in (base.unet, base.vae, base.text_encoder))
    assert not any(weight.requires_grad for weight in base.unet.parameters())


def test_a_bases_card_recommends_settings(folder: Path) -> None:
    card = {"few_shot": {"steps": 7}, "sampling": {"guidance_scale": 1.5}}
    (folder / "card.json").write_text(json.dumps(card))
    base = load_base(str(folder))
    assert base.few_shot == {"steps": 7}
    assert base.sampling == {"guidance_scale": 1.5}


def test_a_base_in_shards_is_the_same_base(tiny_base: Path, folder: Path) -> None:
    for part, network in (("unet", UNet2DConditionModel), ("vae", AutoencoderKL)):
        shutil.rmtree(folder / part)
        network.from_pretrained(tiny_base / part).save_pretrained(folder / part, max_shard_size="100KB")
        assert len(list((folder / part).glob("*.safetensors"))) > 1
    assert equal(load_base(str(folder)), load_base(str(tiny_base)))


@pytest.mark.parametrize("halved", [("unet", "vae", "text_encoder"), ("unet",), ("vae", "text_encoder")])
def test_half_precision_files_serve_where_there_are_no_others(
    halved: tuple[str, ...], tiny_base: Path, tmp_path: Path, folder: Path
) -> None:
    half = tmp_path / "half"
    StableDiffusionPipeline.from_pretrained(tiny_base, dtype=torch.float16).save_pretrained(half, variant="fp16")
    for part in halved:
        shutil.rmtree(folder / part)
        shutil.copytree(half / part, folder / part)
    base = load_base(str(folder))
    assert {value.dtype for value in weights(base).values() if value.is_floating_point()} == {torch.float32}
    assert equal(base, load_base(str(tiny_base)), 2e-3)


def test_full_precision_is_preferred_to_half(tiny_base: Path, folder: Path, tmp_path: Path) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_base, dtype=torch.float16)
    pipeline.save_pretrained(tmp_path / "half", variant="fp16")
    for part in ("unet", "vae", "text_encoder"):
        for file in (tmp_path / "half" / part).glob("*.safetensors"):
            shutil.copy(file, folder / part)
    assert equal(load_base(str(folder)), load_base(str(tiny_base)))
    assert base_digest(folder) == base_digest(tiny_base)


def test_the_digest_follows_what_a_base_computes(tiny_base: Path, folder: Path, tmp_path: Path) -> None:
    same, other = base_digest(folder), build_tiny_base(tmp_path / "other", seed=1)
    assert same == base_digest(tiny_base)
    assert base_digest(other) != same
    (folder / "card.json").write_text("{}")
    assert base_digest(folder) == same
    scheduler = folder / "scheduler" / "scheduler_config.json"
    scheduler.write_text(scheduler.read_text().replace("0.012", "0.013"))
    assert base_digest(folder) != same


def test_all_missing_parts_are_told_at_once(folder: Path) -> None:
    shutil.rmtree(folder / "vae")
    (folder / "unet" / WEIGHTS).unlink()
    (folder / "text_encoder" / "config.json").unlink()
    (folder / "scheduler" / "scheduler_config.json").unlink()
    for file in (folder / "tokenizer").iterdir():
        file.unlink()
    with pytest.raises(UsageError) as caught:
        load_base(str(folder))
    assert caught.value.problems == [
        "unet/ contains no weights (*.safetensors)",
        "the folder vae/ is missing",
        "text_encoder/config.json is missing",
        "tokenizer/ is empty",
        "scheduler/scheduler_config.json is missing",
    ]
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_a_missing_shard_is_named(tiny_base: Path, folder: Path, variant: str | None) -> None:
    shutil.rmtree(folder / "unet")
    unet = UNet2DConditionModel.from_pretrained(tiny_base / "unet")
    unet.save_pretrained(folder / "unet", max_shard_size="100KB", variant=variant)
    lost = sorted((folder / "unet").glob("*.safetensors"))[1]
    lost.unlink()
    with pytest.raises(UsageError) as caught:
        load_base(str(folder))
    assert caught.value.problems == [f"unet/{lost.name} is missing"]


def test_bases_of_another_kind_are_refused(tiny_base: Path, folder: Path) -> None:
    """Such as those for inpainting, whose U-Net takes a masked image too."""
    config = UNet2DConditionModel.load_config(tiny_base / "unet")
    UNet2DConditionModel.from_config(config | {"in_channels": 9, "cross_attention_dim": 16}).save_pretrained(
        folder / "unet"
    )
    with pytest.raises(UsageError) as caught:
        load_base(str(folder))
    assert caught.value.problems == [
        "the U-Net takes 9 channels, but the autoencoder makes 4",
        "the U-Net attends to embeddings of width 16, but the text encoder makes 32",
    ]


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def garble(path: Path) -> None:
    path.write_text("{ not json")


def lose_a_weight(path: Path) -> None:
    tensors = load_file(path)
    tensors.pop(min(tensors))
    save_file(tensors, path, metadata={"format": "pt"})


DAMAGES: dict[str, tuple[str, Callable[[Path], None]]] = {
    "cut unet": (f"unet/{WEIGHTS}", cut_off),
    "cut vae": (f"vae/{WEIGHTS}", cut_off),
    "cut text encoder": ("text_encoder/model.safetensors", cut_off),
    "garbled unet config": ("unet/config.json", garble),
    "garbled text encoder config": ("text_encoder/config.json", garble),
    "garbled tokenizer": ("tokenizer/tokenizer.json", garble),
    "garbled scheduler": ("scheduler/scheduler_config.json", garble),
    "unet without a weight": (f"unet/{WEIGHTS}", lose_a_weight),
    "vae without a weight": (f"vae/{WEIGHTS}", lose_a_weight),
    "text encoder without a weight": ("text_encoder/model.safetensors", lose_a_weight),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_part_is_named(folder: Path, damage: str) -> None:
    name, harm = DAMAGES[damage]
    harm(folder / name)
    with pytest.raises(UsageError, match=name.partition("/")[0]):
        load_base(str(folder))


def test_a_garbled_card_is_named(folder: Path) -> None:
    garble(folder / "card.json")
    with pytest.raises(UsageError, match=r"card\.json"):
        load_base(str(folder))


def test_saim_weights_of_a_base_are_started_from(folder: Path) -> None:
    trained = build_model(load_base(str(folder)), tiny_config(), "metal tile", "crack").denoiser.interaction
    for weight in trained.parameters():
        weight.data += 0.5
    (folder / "interaction").mkdir()
    save_file(trained.state_dict(), folder / "interaction" / "interaction.safetensors")
    started = build_model(load_base(str(folder)), tiny_config(), "metal tile", "crack").denoiser.interaction
    assert all(torch.equal(value, trained.state_dict()[name]) for name, value in started.state_dict().items())


def test_saim_weights_of_another_u_net_are_refused(folder: Path) -> None:
    (folder / "interaction").mkdir()
    save_file({"mid/to_q.weight": torch.zeros(2, 2)}, folder / "interaction" / "interaction.safetensors")
    without = build_model(load_base(str(folder)), tiny_config(saim=False), "metal tile", "crack")
    assert not without.denoiser.interaction
    with pytest.raises(UsageError, match="interaction does not fit"):
        build_model(load_base(str(folder)), tiny_config(), "metal tile", "crack")


@pytest.mark.parametrize("source", ["no-such-base", "./no/such", "/no/such/folder", "a/b/c"])
def test_a_source_that_is_nothing_is_refused_with_what_would_do(source: str) -> None:
    with pytest.raises(UsageError, match=r"give a shipped name \(.*\), a folder, or a hub id like owner/model"):
        locate_base(source)


@pytest.mark.parametrize("source", ["owner/mo del", "owner/.."])
def test_what_cannot_be_a_hub_id_is_refused(source: str) -> None:
    with pytest.raises(UsageError, match="hub"):
        locate_base(source)


def test_without_network_a_hub_id_may_work_later() -> None:
    with pytest.raises(
        TransientError, match="'owner/model' is not a local folder, and the model hub cannot be reached"
    ):
        locate_base("owner/model")
