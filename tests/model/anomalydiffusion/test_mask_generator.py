"""Masks drawn from learned words, where a base's prompts have room for them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model.anomalydiffusion import mask_generator
from model.anomalydiffusion.adapter import AnomalyDiffusionAdapter, load_adapter
from model.anomalydiffusion.mask_generator import mask_pictures
from model.anomalydiffusion.model import build_model
from model.anomalydiffusion.sampling.masks import spread
from model.anomalydiffusion.sampling.sampler import prepare_sampling
from model.diffusion.base import Base, load_base
from model.methods import METHODS
from model.types import MaskArray
from service.core.errors import UsageError
from service.core.options.anomalydiffusion import AnomalySamplingConfig
from tests.support.tiny_anomaly import NORMALS, sampled, tiny_adapter, tiny_config, tiny_request
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


@dataclass(frozen=True)
class Drawing:
    """Draws the same mask every time."""

    mask: MaskArray

    def draw(self, kind: int, seed: int) -> MaskArray:
        assert (kind, seed >= 0) == (0, True)
        return self.mask


def laid(adapter: AnomalyDiffusionAdapter, mask: MaskArray, **chosen: object) -> list[MaskArray]:
    """Where a drawn mask `(32, 32)` comes to lie on four candidates of 56 × 44 pixels."""
    source = prepare_sampling(adapter, AnomalySamplingConfig(**chosen), normals=NORMALS).source
    source = replace(source, generator=Drawing(mask))
    return [source.draw(number, np.random.default_rng(number)).mask for number in range(4)]


def square(first: int, last: int) -> MaskArray:
    mask = np.zeros((32, 32), np.bool_)
    mask[first:last, first:last] = True
    return mask


def test_a_drawn_mask_is_moved_into_the_region_at_the_size_that_is_asked_for(base: Base) -> None:
    adapter = tiny_adapter(base)
    for mask in laid(adapter, square(2, 10), region=(0.5, 0.5, 1.0, 1.0), sizes=(1.0, 1.0)):
        assert 100 <= mask.sum() <= 169  # 8 of 32 pixels are 11 of 44
        assert not mask[:28].any()
        assert not mask[:, :22].any()
    for mask in laid(adapter, square(8, 24), sizes=(0.5, 0.5)):
        assert 90 <= mask.sum() <= 196


def test_drawn_masks_that_are_empty_full_or_hug_the_border_are_not_filled(base: Base) -> None:
    adapter = tiny_adapter(base)
    edge = np.zeros((32, 32), np.bool_)
    edge[:, :3] = True
    for mask in (square(0, 0), square(0, 32), edge):
        assert not any(each.any() for each in laid(adapter, mask))
    assert all(each.any() for each in laid(adapter, square(10, 16)))


def test_an_adapter_that_did_not_learn_masks_does_not_draw_any(base: Base) -> None:
    settings = METHOD.resolve_sampling(base, {"mask_source": "learned"}, has_normals=True, adapter=None)
    with pytest.raises(UsageError, match="did not learn to draw masks: use mask_source real"):
        METHOD.check_sampling(tiny_adapter(base), settings, has_normals=True, has_object_net=False)
    with pytest.raises(UsageError, match="angles turns real masks, and learned ones are drawn as they lie: leave it"):
        METHOD.resolve_sampling(base, {"mask_source": "learned", "angles": (0, 9)}, has_normals=True, adapter=None)


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
