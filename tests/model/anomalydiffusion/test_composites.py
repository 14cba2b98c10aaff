"""Composites: real defects copied to good parts, drawn once from the seed, to learn from beside the real crops."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from model.adapter_card import read_adapter_card
from model.anomalydiffusion import trainer
from model.anomalydiffusion.composites import NONE, cut_composites
from model.anomalydiffusion.latent_dataset import Crops
from model.data.placement import NormalImage
from model.diffusion.base import Base, load_base
from model.masks.objects import Objects
from model.methods import METHODS
from model.runtime.progress import Progress
from model.training import early_stopping
from model.training.checkpoint import list_checkpoints
from model.types import Pair
from tests.support.tiny_anomaly import NORMALS, tiny_config, tiny_request
from tests.support.tiny_data import drawn_pair, last, tiny_u2net

METHOD = METHODS["anomalydiffusion"]
PAIRS = [drawn_pair(seed, 96, 80) for seed in range(2)]


def value_of(job: Generator[Any, None, tuple[Crops, list[NormalImage]]]) -> Crops:
    while True:
        try:
            next(job)
        except StopIteration as end:
            found: Crops = end.value[0]
            return found


def made(pairs: list[Pair], normals: list[NormalImage], **chosen: Any) -> Crops:
    return value_of(cut_composites(pairs, list(range(len(pairs))), normals, tiny_config(**chosen), None))


def flat(level: int, side: int = 64) -> NormalImage:
    return NormalImage(f"flat{level}", np.full((side, side, 3), level, np.uint8))


def dark(surface: int, defect: int) -> Pair:
    pair = Pair("dark", np.full((64, 64, 3), surface, np.uint8), np.zeros((64, 64), np.bool_))
    pair.mask[20:34, 24:40] = True
    pair.image[pair.mask] = defect
    return pair


def test_every_composite_shows_its_defect_on_a_good_part_in_that_parts_light() -> None:
    crops = made([dark(100, 50)], [flat(200)], composite_views=12)
    assert crops.types == [0] * 12
    for image, mask in zip(crops.images, crops.masks, strict=True):
        assert image.shape == (32, 32, 3)
        assert mask.any()
        assert abs(np.median(image[mask]) - 100) <= 2  # half as bright as the surface, as on its own photograph
        assert (image[~mask] == 200).mean() > 0.7


def test_a_composite_is_drawn_from_seed_and_number_alone() -> None:
    few, many = (made(pairs, NORMALS, composite_views=5) for pairs in (PAIRS[:1], PAIRS))
    again, other = (made(PAIRS, NORMALS, composite_views=5, seed=seed) for seed in (0, 1))
    assert many.types == [0] * 5 + [1] * 5
    for one, same in zip(few.images, many.images, strict=False):
        assert np.array_equal(one, same)
    assert all(np.array_equal(one, same) for one, same in zip(many.images, again.images, strict=True))
    assert not any(np.array_equal(one, same) for one, same in zip(many.images, other.images, strict=True))


def test_no_composites_are_made_where_defects_belong_to_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    half = np.zeros((64, 64), np.bool_)
    half[:, :32] = True
    product, surface, other = flat(200), flat(180), flat(160)
    monkeypatch.setattr(Objects, "in_normal", lambda _, name: half if name == product.name else None)

    def on(*normals: NormalImage) -> Crops:
        config = tiny_config(composite_views=24)
        return value_of(cut_composites([dark(110, 60)], [0], normals, config, tiny_u2net()))

    on_surfaces = on(product, surface, other)
    assert 9 <= len(on_surfaces.images) <= 22
    assert not any((image == 200).any() for image in on_surfaces.images)
    assert on(product, product, surface) == Crops([], [], [])

    striped = np.where(np.arange(64)[:, None, None] % 16 < 8, 250, 20).astype(np.uint8)
    stripes = NormalImage("stripes", np.repeat(np.repeat(striped, 64, 1), 3, 2))
    assert made([dark(110, 60)], [stripes], composite_views=8) == Crops([], [], [])

    board = Pair("open", np.full((64, 64, 3), 255, np.uint8), np.zeros((64, 64), np.bool_))
    board.image[20:30] = 0
    board.mask[20:30, 20:30] = True
    board.image[board.mask] = 255
    assert made([board], [flat(255)], composite_views=8) == Crops([], [], [])


def test_a_card_names_no_good_parts_where_none_were_learned_from(base: Base, tmp_path: Path) -> None:
    pair = Pair("open", np.full((64, 64, 3), 255, np.uint8), np.zeros((64, 64), np.bool_))
    pair.image[20:30] = 0
    pair.mask[20:30, 20:30] = True
    pair.image[pair.mask] = 255
    request = replace(tiny_request(base, [pair], composite_views=4, match_contrast=False), normals=[flat(255)])
    notes = [item.note for item in METHOD.train(request, tmp_path / "adapter", tmp_path / "work") if item.note]
    assert notes == [NONE]
    assert read_adapter_card(tmp_path / "adapter")["normals"] == []


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {
        f"{path.name}:{name}": tensor
        for path in folder.rglob("*.safetensors")
        for name, tensor in load_file(path).items()
    }


@pytest.fixture(scope="module")
def base(tiny_base: Path) -> Base:
    return load_base(str(tiny_base))


def test_a_resumed_training_with_composites_equals_an_uninterrupted_one(base: Base, tmp_path: Path) -> None:
    request = replace(tiny_request(base, PAIRS, composite_views=4, match_contrast=False), normals=NORMALS)
    list(METHOD.train(request, tmp_path / "whole", tmp_path / "work"))
    for item in METHOD.train(request, tmp_path / "cut", tmp_path / "half"):
        if isinstance(item, Progress) and list_checkpoints(tmp_path / "half"):
            break
    list(METHOD.train(request, tmp_path / "cut", tmp_path / "half"))
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    card = read_adapter_card(tmp_path / "whole")
    assert [normal["name"] for normal in card["normals"]] == [normal.name for normal in NORMALS]
    plain = replace(tiny_request(base, PAIRS, match_contrast=False), normals=NORMALS)
    list(METHOD.train(plain, tmp_path / "plain", tmp_path / "without"))
    assert any(not torch.equal(whole[name], value) for name, value in weights(tmp_path / "plain").items())
    assert read_adapter_card(tmp_path / "plain")["normals"] == []


def test_without_good_parts_training_uses_the_real_pairs_alone_and_says_so(base: Base, tmp_path: Path) -> None:
    cards = []
    for views in (0, 4):
        request = tiny_request(base, PAIRS, composite_views=views)
        notes = METHOD.check_training(request)
        assert ("no normals were given: training uses the real pairs alone" in notes) == bool(views)
        last(METHOD.train(request, tmp_path / f"adapter{views}", tmp_path / f"work{views}"))
        cards.append((tmp_path / f"adapter{views}" / "card.json").read_bytes())
    assert cards[0] == cards[1]


def test_a_pair_that_is_held_out_is_not_copied_either(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MEASURE_EVERY", "PATIENCE"):
        monkeypatch.setattr(early_stopping, name, 2)
    copied = list[str]()

    def watched(pairs: list[Pair], *others: Any) -> Any:
        copied.extend(pair.name for pair in pairs)
        return cut_composites(pairs, *others)

    monkeypatch.setattr(trainer, "cut_composites", watched)
    pairs = [drawn_pair(seed) for seed in range(5)]
    chosen = {"steps": 5, "early_stop": True, "views": 1, "composite_views": 2, "match_contrast": False}
    request = replace(tiny_request(base, pairs, **chosen), normals=NORMALS)
    list(METHOD.train(request, tmp_path / "adapter", tmp_path / "work"))
    held_out = read_adapter_card(tmp_path / "adapter")["held_out"]["pair"]
    assert sorted([*copied, held_out]) == sorted(pair.name for pair in pairs)
