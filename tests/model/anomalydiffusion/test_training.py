"""Training and the adapter's folder: exact resume, several types, strict loading."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from model.adapter_card import read_adapter_card
from model.anomalydiffusion.adapter import AnomalyDiffusionAdapter, load_adapter, save_adapter
from model.anomalydiffusion.latent_dataset import cut_crops, encode_crops
from model.anomalydiffusion.loss import training_loss
from model.anomalydiffusion.model import build_model
from model.diffusion.base import Base, load_base
from model.method import DefectType
from model.methods import METHODS
from model.runtime.progress import Progress
from model.runtime.seeding import step_generator
from model.training import early_stopping
from model.training.checkpoint import list_checkpoints
from service.core.errors import UsageError
from tests.support.tiny_anomaly import tiny_adapter, tiny_config, tiny_request
from tests.support.tiny_data import drawn_pair, last

METHOD = METHODS["anomalydiffusion"]
PAIRS = [drawn_pair(seed) for seed in range(2)]


@pytest.fixture(scope="module")
def base(tiny_base: Path) -> Base:
    return load_base(str(tiny_base))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {
        f"{path.name}:{name}": tensor
        for path in folder.rglob("*.safetensors")
        for name, tensor in load_file(path).items()
    }


def test_resumed_training_equals_an_uninterrupted_one_bit_for_bit(base: Base, tmp_path: Path) -> None:
    others = DefectType("break", [drawn_pair(7)])
    request = tiny_request(base, PAIRS, others)
    list(METHOD.train(request, tmp_path / "whole", tmp_path / "work"))
    for item in METHOD.train(tiny_request(base, PAIRS, others), tmp_path / "cut", tmp_path / "half"):
        if isinstance(item, Progress) and list_checkpoints(tmp_path / "half"):
            break
    list(METHOD.train(tiny_request(base, PAIRS, others), tmp_path / "cut", tmp_path / "half"))
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    card = read_adapter_card(tmp_path / "whole")
    assert card["types"] == ["crack", "break"]
    assert card["defect"] == "crack, break"
    assert [entry["defect"] for entry in card["data"]] == ["crack", "crack", "break"]
    assert card == read_adapter_card(tmp_path / "cut")
    found = {path.relative_to(tmp_path / "whole").as_posix() for path in (tmp_path / "whole").rglob("*.safetensors")}
    assert set(METHOD.weight_files(card)) == found


@pytest.mark.parametrize("seed", [0, 3])
def test_no_type_of_defect_loses_its_only_pair_to_early_stopping(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    for name in ("MEASURE_EVERY", "PATIENCE"):
        monkeypatch.setattr(early_stopping, name, 2)
    breaks = [drawn_pair(number) for number in range(1, 6)]
    chosen = {"steps": 5, "early_stop": True, "views": 1, "seed": seed}
    request = tiny_request(base, [drawn_pair(0)], DefectType("break", breaks), **chosen)
    list(METHOD.train(request, tmp_path / "adapter", tmp_path / "work"))
    held_out = read_adapter_card(tmp_path / "adapter")["held_out"]
    assert held_out["pair"] == breaks[seed % 5].name
    assert len(held_out["curve"]) == 2


def test_training_lowers_the_loss_inside_the_mask_and_leaves_the_base_alone(base: Base, tmp_path: Path) -> None:
    config = tiny_config(steps=12, batch=4, lr=1e-2, fill_rank=8, lora_targets="all", views=1, rotation=0.0)
    before = {name: value.clone() for name, value in base.unet.state_dict().items()}
    dataset = last_of(encode_crops(base, cut_crops(PAIRS[:1], [0], config)))

    def loss(adapter: AnomalyDiffusionAdapter) -> float:
        with torch.no_grad():
            return float(sum(training_loss(adapter.model, dataset, step_generator(9, number)) for number in range(4)))

    untrained = AnomalyDiffusionAdapter(build_model(base, config, ["crack"]), {}, [], [], [])
    list(METHOD.train(tiny_request(base, PAIRS[:1], **config.as_dict()), tmp_path / "adapter", tmp_path / "work"))
    assert loss(load_adapter(tmp_path / "adapter", base)) < 0.9 * loss(untrained)
    assert all(torch.equal(value, before[name]) for name, value in base.unet.state_dict().items())


def last_of(items: object) -> object:
    """What a generator returns."""
    while True:
        try:
            next(items)
        except StopIteration as end:
            return end.value


def test_what_is_saved_comes_back_bit_for_bit(base: Base, tmp_path: Path) -> None:
    adapter = tiny_adapter(base, ["crack", "break"])
    save_adapter(tmp_path / "adapter", adapter)
    loaded = load_adapter(tmp_path / "adapter", base)
    trained, restored = adapter.model, loaded.model
    for name, module in trained.learned().items():
        for one, other in zip(module.parameters(), restored.learned()[name].parameters(), strict=True):
            assert torch.equal(one, other)
    lora = [name for name, _ in trained.unet.named_parameters() if "lora_" in name]
    assert all(torch.equal(trained.unet.get_parameter(name), restored.unet.get_parameter(name)) for name in lora)
    assert [real.kind for real in loaded.masks] == [0, 0, 1, 1]
    assert all(np.array_equal(one.mask, other.mask) for one, other in zip(loaded.masks, adapter.masks, strict=True))
    assert loaded.card == adapter.card


def test_a_damaged_folder_is_refused_naming_all_that_is_wrong(base: Base, tmp_path: Path) -> None:
    save_adapter(tmp_path / "adapter", tiny_adapter(base))
    tensors = load_file(tmp_path / "adapter" / "embeddings.safetensors")
    save_file({"vectors": tensors["vectors"][..., :5].contiguous()}, tmp_path / "adapter" / "embeddings.safetensors")
    (tmp_path / "adapter" / "spatial.safetensors").unlink()
    (tmp_path / "adapter" / "masks" / "001.png").unlink()
    with pytest.raises(UsageError) as caught:
        load_adapter(tmp_path / "adapter", base)
    assert [problem.partition(":")[0].partition(" ")[0] for problem in caught.value.problems] == [
        "embeddings.safetensors",
        f"{(tmp_path / 'adapter').name}/spatial.safetensors",
        "spatial.safetensors",
        "masks/001",
    ]


def test_settings_come_from_the_base_and_guidance_only_if_asked(base: Base) -> None:
    base.card = {"few_shot": {"fill_rank": 3, "rank": 9, "steps": 7}, "sampling": {"steps": 5, "guidance_scale": 4.0}}
    try:
        config = METHOD.resolve_training(base, {"steps": 2})
        assert (config.fill_rank, config.steps, config.resolution, config.view) == (3, 2, 32, "window")
        assert METHOD.resolve_training(base, {"view": "whole"}).view == "whole"
        sampling = METHOD.resolve_sampling(base, {}, has_normals=True, adapter=None)
        assert (sampling.steps, sampling.guidance_scale) == (5, 1.0)
        assert METHOD.resolve_sampling(base, {"guidance_scale": 2}, has_normals=True, adapter=None).guidance_scale == 2
    finally:
        base.card = {}
    with pytest.raises(UsageError, match="none were given: provide normals"):
        METHOD.resolve_sampling(base, {}, has_normals=False, adapter=None)
    for wrong in ({"region": (0.5, 0, 0.2, 1)}, {"sizes": (2, 1)}, {"angles": (-400, 0)}, {"scheduler": "magic"}):
        with pytest.raises(UsageError, match=f"{next(iter(wrong))} is .*it must be"):
            METHOD.resolve_sampling(base, wrong, has_normals=True, adapter=None)


def test_no_steps_leave_the_base_as_it_is(base: Base, tmp_path: Path) -> None:
    assert last(METHOD.train(tiny_request(base, PAIRS, steps=0), tmp_path / "adapter", tmp_path / "work")) is None
    assert read_adapter_card(tmp_path / "adapter")["steps"] == 0
