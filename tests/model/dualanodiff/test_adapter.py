"""The adapter's folder: what is saved comes back bit for bit, loads elsewhere, and nothing else passes for it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from model.adapter_card import read_adapter_card
from model.diffusion.base import Base, load_base
from model.dualanodiff.adapter import DualAnoDiffAdapter, load_adapter, make_references, save_adapter
from model.dualanodiff.unet import ForwardOptions
from model.methods import METHODS
from model.types import Pair
from service.core.errors import UsageError
from tests.support.tiny_data import drawn_pair, surface, tiny_adapter, tiny_config, tiny_u2net

LORA = "pytorch_lora_weights.safetensors"


@pytest.fixture(scope="module")
def base(tiny_base: Path) -> Base:
    return load_base(str(tiny_base))


@pytest.fixture(scope="module")
def adapter(base: Base) -> DualAnoDiffAdapter:
    made = tiny_adapter(base, bcm=True)
    made.mask_net = tiny_u2net()
    return made


def saved(adapter: DualAnoDiffAdapter, folder: Path) -> Path:
    run = {"seconds": 3}
    save_adapter(folder, adapter.model, adapter.card, adapter.references, mask_net=adapter.mask_net, run=run)
    return folder


@pytest.fixture
def folder(adapter: DualAnoDiffAdapter, tmp_path: Path) -> Path:
    return saved(adapter, tmp_path / "adapter")


def test_what_is_saved_comes_back_bit_for_bit(adapter: DualAnoDiffAdapter, folder: Path, base: Base) -> None:
    loaded = load_adapter(folder, base)
    assert loaded.card == adapter.card
    assert loaded.placements == adapter.placements
    for one, other in zip(loaded.references, adapter.references, strict=True):
        assert one.name == other.name
        assert np.array_equal(one.image, other.image)
        assert np.array_equal(one.mask, other.mask)
    assert loaded.mask_net is not None
    assert adapter.mask_net is not None
    for ours, theirs in (
        (loaded.model.denoiser, adapter.model.denoiser),
        (loaded.model.text_encoder, adapter.model.text_encoder),
        (loaded.mask_net, adapter.mask_net),
    ):
        state = theirs.state_dict()
        assert ours.state_dict().keys() == state.keys()
        assert all(torch.equal(value, state[name]) for name, value in ours.state_dict().items())


@pytest.mark.parametrize(
    "options", [{}, {"lora_targets": "all", "text_rank": 0}, {"reference_init": True, "rank": 3}, {"saim": False}]
)
def test_other_settings_come_back_too(options: dict[str, Any], base: Base, tmp_path: Path) -> None:
    made = tiny_adapter(base, **options)
    loaded = load_adapter(saved(made, tmp_path / "adapter"), base)
    assert loaded.model.config == made.model.config
    assert loaded.mask_net is None
    expected = made.model.denoiser.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in loaded.model.denoiser.state_dict().items())


def test_an_adapter_without_saim_has_no_file_for_it_and_needs_none(base: Base, tmp_path: Path) -> None:
    folder = saved(tiny_adapter(base, saim=False), tmp_path / "adapter")
    assert not (folder / "interaction.safetensors").exists()
    assert not load_adapter(folder, base).model.denoiser.interaction


def test_adapters_made_before_saim_was_an_option_have_it(folder: Path, adapter: DualAnoDiffAdapter, base: Base) -> None:
    config = adapter.model.config.as_dict()
    del config["saim"]
    edit_card(folder, config=config)
    assert load_adapter(folder, base).model.denoiser.interaction
    assert "interaction.safetensors" in METHODS["dualanodiff"].weight_files(read_adapter_card(folder))


def test_a_loaded_adapter_is_frozen(folder: Path, base: Base) -> None:
    model = load_adapter(folder, base).model
    assert not model.trainable()
    assert not model.denoiser.training
    assert not model.text_encoder.training


def test_the_same_adapter_gives_the_same_bytes(adapter: DualAnoDiffAdapter, folder: Path, tmp_path: Path) -> None:
    again = saved(adapter, tmp_path / "again")
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    assert all((folder / file).read_bytes() == (again / file).read_bytes() for file in files)


def test_saving_replaces_what_was_there(adapter: DualAnoDiffAdapter, folder: Path, base: Base) -> None:
    (folder / "leftover").touch()
    saved(adapter, folder)
    assert not (folder / "leftover").exists()
    assert [path.name for path in folder.parent.iterdir()] == ["adapter"]
    load_adapter(folder, base)


@pytest.mark.parametrize("targets", ["attention", "all"])
@torch.no_grad()
def test_diffusers_loads_either_branch_and_computes_the_same(
    targets: str, base: Base, tiny_base: Path, tmp_path: Path
) -> None:
    made = tiny_adapter(base, lora_targets=targets)
    path = saved(made, tmp_path / "adapter")
    latents, timesteps = torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([20, 800])
    text = made.model.prompt_embeddings()
    ours = made.model.denoiser(latents, timesteps, text.expand(-1, 2, -1, -1), ForwardOptions(interact=False))
    for number, branch in enumerate(("global", "anomaly")):
        pipeline = StableDiffusionPipeline.from_pretrained(tiny_base)
        pipeline.load_lora_weights(path / branch)
        theirs = pipeline.text_encoder(made.model.tokens[number]).last_hidden_state
        torch.testing.assert_close(theirs, text[number], atol=1e-5, rtol=1e-5)
        output = pipeline.unet(latents[number], timesteps, theirs.expand(2, -1, -1)).sample
        torch.testing.assert_close(output, ours[number], atol=1e-5, rtol=1e-5)


def test_the_card_names_the_licence_of_its_base(base: Base) -> None:
    licensed = replace(base, card={"license": "CreativeML-OpenRAIL-M"})
    assert tiny_adapter(licensed).card["base"]["license"] == "CreativeML-OpenRAIL-M"


def test_the_card_says_what_it_is(adapter: DualAnoDiffAdapter, base: Base) -> None:
    card = adapter.card
    assert (card["format_version"], card["method"]) == (1, "dualanodiff")
    assert (card["object"], card["defect"]) == ("metal tile", "crack")
    assert card["base"] == {"name": base.name, "sha256": base.digest, "license": None}
    assert card["config"]["bcm"] is True
    assert card["greyscale"] is False
    assert card["steps"] == adapter.model.config.steps
    assert [entry["name"] for entry in card["data"]] == ["blot0", "blot1"]
    assert [(entry["width"], entry["height"]) for entry in card["data"]] == [(40, 48)] * 2
    assert len({entry["image_sha256"] for entry in card["data"]}) == 2
    assert card["software"].keys() == {"pairforge", "torch", "diffusers", "peft", "transformers"}
    assert json.loads(json.dumps(card)) == card


def test_when_it_was_made_stands_apart_from_the_card(folder: Path) -> None:
    assert json.loads((folder / "run.json").read_text()) == {"seconds": 3}
    assert "seconds" not in (folder / "card.json").read_text()


def test_references_are_views_at_the_photographs_own_scale() -> None:
    pairs = [drawn_pair(0, 90, 120), drawn_pair(1, 20, 30)]
    references, placements = make_references(pairs, tiny_config(view="window"))
    for pair, reference, place in zip(pairs, references, placements, strict=True):
        height, width = pair.mask.shape
        assert pair.name == reference.name == place.name
        assert reference.image.shape[:2] == reference.mask.shape == (place.side, place.side)
        assert reference.mask.any()
        top, left = round(place.y * (height - place.side)), round(place.x * (width - place.side))
        window = np.s_[top : top + place.side, left : left + place.side]
        assert np.array_equal(reference.image, pair.image[window])
        assert np.array_equal(reference.mask, pair.mask[window])


def test_every_single_defect_is_a_reference() -> None:
    mask = np.zeros((120, 120), np.bool_)
    mask[8:14, 8:14] = mask[100:106, 90:99] = True
    pair = Pair("two", surface(0, 120, 120), mask)
    references, placements = make_references([pair], tiny_config(view="window"))
    assert [reference.name for reference in references] == ["two", "two"]
    assert [reference.mask.sum() for reference in references] == [36, 54]
    assert placements[0].y < 0.5 < placements[1].y


def test_references_show_defects_of_every_size_but_no_dust() -> None:
    mask = np.zeros((300, 300), np.bool_)
    mask[20:80, 20:60] = mask[280:283, 280:285] = True
    dusty = mask.copy()
    dusty[120:240:9, 100:290:17] = True
    references, _ = make_references([Pair("dusty", surface(0, 300, 300), dusty)], tiny_config(view="window"))
    assert len(references) == 2
    assert [int((reference.mask).sum()) > 1000 for reference in references] == [True, False]
    assert references[1].mask.sum() >= 15


def test_another_base_is_refused_with_both_names(folder: Path, base: Base, tiny_v_base: Path) -> None:
    other = load_base(str(tiny_v_base))
    with pytest.raises(UsageError) as caught:
        load_adapter(folder, other)
    for named in (base.name, base.digest[:12], other.name, other.digest[:12]):
        assert named in str(caught.value)


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def lose_a_weight(path: Path) -> None:
    tensors = load_file(path)
    tensors.pop(max(tensors))
    save_file(tensors, path)


def gain_a_weight(path: Path) -> None:
    tensors = load_file(path)
    save_file(tensors | {max(tensors) + ".more": torch.zeros(1)}, path)


def reshape_a_weight(path: Path) -> None:
    tensors = load_file(path)
    save_file(tensors | {max(tensors): torch.zeros(1, 1)}, path)


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "missing": (Path.unlink, "cannot be read|No such file"),
    "cut off": (cut_off, "cannot be read|truncated"),
    "a weight missing": (lose_a_weight, "1 weights are missing, first "),
    "a weight too many": (gain_a_weight, "1 weights are unknown, first "),
    "a weight of another shape": (reshape_a_weight, r"is \(1, 1\) instead of"),
}
FILES = (f"global/{LORA}", f"anomaly/{LORA}", "interaction.safetensors", "background.safetensors")


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damaged_file_is_named_at_once(folder: Path, base: Base, damage: str) -> None:
    harm, says = DAMAGES[damage]
    for name in FILES:
        harm(folder / name)
    with pytest.raises(UsageError, match=says) as caught:
        load_adapter(folder, base)
    assert str(folder) in caught.value.summary
    for name in FILES:
        assert any(name in problem for problem in caught.value.problems), name


@pytest.mark.parametrize("name", ["reference/000.png", "reference/001_mask.png"])
@pytest.mark.parametrize("damage", ["missing", "cut off"])
def test_damaged_references_are_named(folder: Path, base: Base, name: str, damage: str) -> None:
    DAMAGES[damage][0](folder / name)
    with pytest.raises(UsageError, match=name[:13]):
        load_adapter(folder, base)


def test_a_damaged_mask_network_is_named(folder: Path, base: Base) -> None:
    cut_off(folder / "mask_net.safetensors")
    with pytest.raises(UsageError, match=r"mask_net\.safetensors"):
        load_adapter(folder, base)


def test_a_text_lora_missing_is_named(folder: Path, base: Base) -> None:
    path = folder / "global" / LORA
    save_file({name: value for name, value in load_file(path).items() if name.startswith("unet.")}, path)
    with pytest.raises(UsageError, match=rf"global/{LORA}: .* weights are missing, first "):
        load_adapter(folder, base)


def edit_card(folder: Path, **changes: Any) -> None:
    card = json.loads((folder / "card.json").read_text()) | changes
    (folder / "card.json").write_text(json.dumps({key: value for key, value in card.items() if value is not None}))


def test_a_folder_without_a_card_is_no_adapter(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is not an adapter: it has no card\.json"):
        read_adapter_card(tmp_path)


@pytest.mark.parametrize("changes", [{"format_version": 2}, {"method": "other"}, {"format_version": None}])
def test_a_format_of_the_future_is_refused(folder: Path, base: Base, changes: dict[str, Any]) -> None:
    edit_card(folder, **changes)
    with pytest.raises(UsageError, match=r"this version reads format 1, method 'dualanodiff'"):
        load_adapter(folder, base)


@pytest.mark.parametrize("content", ["{ not json", "[]", '"card"'])
def test_a_garbled_card_is_refused(folder: Path, base: Base, content: str) -> None:
    (folder / "card.json").write_text(content)
    with pytest.raises(UsageError, match=r"card\.json"):
        load_adapter(folder, base)


@pytest.mark.parametrize("field", ["base", "config", "object", "data", "placements"])
def test_a_card_that_lacks_something_is_refused(folder: Path, base: Base, field: str) -> None:
    edit_card(folder, **{field: None})
    with pytest.raises(UsageError, match=rf"card\.json.*{field}"):
        load_adapter(folder, base)


def test_options_of_another_version_are_named(folder: Path, base: Base, adapter: DualAnoDiffAdapter) -> None:
    edit_card(folder, config=adapter.model.config.as_dict() | {"unheard_of": 1})
    with pytest.raises(UsageError, match="unheard_of"):
        load_adapter(folder, base)


def test_an_adapter_may_be_moved(folder: Path, base: Base, tmp_path: Path) -> None:
    moved = shutil.move(folder, tmp_path / "elsewhere")
    assert load_adapter(Path(moved), replace(base, name="the same base, elsewhere")).card["object"] == "metal tile"
