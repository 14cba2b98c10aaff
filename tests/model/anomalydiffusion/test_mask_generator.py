"""Masks drawn from learned words, where a base's prompts have room for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from model.anomalydiffusion import mask_generator
from model.anomalydiffusion.adapter import load_adapter
from model.anomalydiffusion.mask_generator import mask_pictures
from model.anomalydiffusion.model import build_model
from model.anomalydiffusion.sampling.masks import spread
from model.diffusion.base import Base, load_base
from model.methods import METHODS
from service.core.errors import UsageError
from tests.support.tiny_anomaly import sampled, tiny_adapter, tiny_config, tiny_request
from tests.support.tiny_base import SD_PIXEL_SIZE
from tests.support.tiny_data import drawn_pair

METHOD = METHODS["anomalydiffusion"]
PAIRS = [drawn_pair(seed) for seed in range(2)]


@pytest.fixture(scope="module")
def base(tiny_sd_base: Path) -> Base:
    return load_base(str(tiny_sd_base))


def test_masks_are_learned_beside_the_defect_and_drawn(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = {"steps": 1, "mask_generator_steps": 2, "fill_rank": 0, "resolution": SD_PIXEL_SIZE}
    list(METHOD.train(tiny_request(base, PAIRS, **chosen), tmp_path / "adapter", tmp_path / "work"))
    adapter = load_adapter(tmp_path / "adapter", base)
    files = {path.name for path in (tmp_path / "adapter").rglob("*.safetensors")}
    assert set(METHOD.weight_files(adapter.card)) == files
    assert adapter.mask_words is not None
    vectors = adapter.mask_words.embeddings.vectors
    assert vectors.shape == (1, 16, 768)
    assert not torch.equal(vectors[0, 0], vectors[0, 1])
    monkeypatch.setattr(mask_generator, "STEPS", 2)
    monkeypatch.setattr(mask_generator, "THRESHOLD", 0.5)  # what the tiny base draws is grey
    one, other = (sampled(adapter, 0, 1, mask_source="learned", steps=1)[0] for _ in range(2))
    assert np.array_equal(one.mask, other.mask)


def test_an_adapter_that_did_not_learn_masks_does_not_draw_any(base: Base) -> None:
    settings = METHOD.resolve_sampling(base, {"mask_source": "learned"}, has_normals=True, adapter=None)
    with pytest.raises(UsageError, match="did not learn to draw masks: use mask_source real"):
        METHOD.check_sampling(tiny_adapter(base), settings, has_normals=True, has_object_net=False)


def test_a_base_without_room_for_the_words_is_refused_before_training(tiny_base: Path) -> None:
    short = load_base(str(tiny_base))
    with pytest.raises(UsageError, match="16 learned words need prompts of 21 tokens, but this base's have 16"):
        METHOD.check_training(tiny_request(short, PAIRS, mask_generator_steps=5))


def test_pictures_of_masks_show_whole_ones_in_white(base: Base) -> None:
    model = build_model(base, tiny_config(), ["crack"])
    crops = mask_pictures(PAIRS, [0, 0], model)
    for shown, mask in zip(crops.images, crops.masks, strict=True):
        assert set(np.unique(shown)) == {0, 255}
        assert np.array_equal(shown[..., 0] > 0, mask)


def test_a_square_mask_is_spread_over_the_photograph() -> None:
    mask = np.zeros((8, 8), np.bool_)
    mask[2:4, 2:4] = True
    found = spread(mask, (16, 40, 3), np.random.default_rng(0))
    assert found.sum() == 16
    assert found[4:8].any(axis=1).all()
