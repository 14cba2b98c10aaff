"""The second pass at a finer scale: which pairs it draws again, and what it leaves as it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from model.data.placement import NormalImage
from model.diffusion.base import Base, load_base
from model.dualanodiff.adapter import DualAnoDiffAdapter, make_references
from model.dualanodiff.sampling.config import resolve_sampling
from model.dualanodiff.sampling.refining import finer_side
from model.dualanodiff.sampling.sampler import prepare_sampling, sample_pairs
from model.types import Candidate, Pair
from service.core.errors import UsageError
from service.core.options.common import MaskMethod
from service.core.options.dualanodiff import SamplingConfig
from tests.support.tiny_data import drawn_normal, surface, tiny_adapter

ONCE = SamplingConfig(steps=4, batch=3, mask_method=MaskMethod.THRESHOLD, anchored=True)
NORMALS = [drawn_normal(3, 150, 170)]


@pytest.fixture(scope="module")
def base(tiny_base: Path) -> Base:
    return load_base(str(tiny_base))


def blot(name: str, side: int) -> Pair:
    """A dark square on a surface of 150 × 160 pixels."""
    image, mask = surface(5, 150, 160).copy(), np.zeros((150, 160), np.bool_)
    mask[30 : 30 + side, 40 : 40 + side] = True
    image[mask] //= 3
    return Pair(name, image, mask)


def at_rim(name: str) -> Pair:
    """A hole at the rim of a bright part that lies on a dark tray."""
    image, mask = np.full((150, 160, 3), 60, np.uint8), np.zeros((150, 160), np.bool_)
    image[40:, :] = (180, 150, 110)
    mask[40:100, 50:110] = True
    image[mask] = 60
    return Pair(name, image, mask)


def adapter_of(base: Base, *pairs: Pair) -> DualAnoDiffAdapter:
    adapter = tiny_adapter(base, view="window", resolution=32)
    references, placements = make_references(pairs, adapter.model.config)
    return replace(adapter, references=references, placements=placements)


def sampled(
    adapter: DualAnoDiffAdapter, config: SamplingConfig, start: int = 0, normals: list[NormalImage] = NORMALS
) -> list[Candidate]:
    return list(sample_pairs(prepare_sampling(adapter, config, normals=normals), start, 6))


def same(one: Candidate, other: Candidate) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("image", "mask", "part"))


def test_a_canvas_grows_fourfold_at_most_never_beyond_the_photograph_and_by_half_at_least() -> None:
    assert finer_side(64, 240, 64) == 224
    assert finer_side(64, 322, 64) == 256
    assert finer_side(128, 1000, 64) == 384, "the largest canvas"
    for side in (64, 96, 160, 384):
        for window in range(side, 2100, 7):
            finer = finer_side(side, window, 64)
            longest = min(window, 4 * side, 384) // 32 * 32
            assert finer == (longest if longest >= 1.5 * side else None)


@pytest.mark.parametrize("scheduler", ["dpmsolver++", "EulerAncestralDiscreteScheduler"])
def test_wide_defects_are_drawn_again_in_any_batch_and_small_ones_stay(base: Base, scheduler: str) -> None:
    adapter = adapter_of(base, blot("wide", 70), blot("less", 45), blot("small", 12))
    once = replace(ONCE, scheduler=scheduler)
    again = replace(once, refine_strength=0.5)
    first, second = sampled(adapter, once), sampled(adapter, again)
    assert all(map(same, second, sampled(adapter, replace(again, batch=1))))
    assert all(map(same, second[2:], sampled(adapter, again, 2)))
    wide = [each.window is not None and each.window[2] - each.window[0] > 60 for each in first]
    assert 0 < sum(wide) < len(first)
    for one, other, is_wide in zip(first, second, wide, strict=True):
        assert one.window == other.window
        assert same(one, other) == (not is_wide or not one.mask.any())
        changed = (other.image != NORMALS[0].image).any(-1)
        near = ndimage.distance_transform_edt(~other.mask) <= 16 if other.mask.any() else np.zeros_like(changed)
        assert not (changed & ~near).any()


def test_a_given_part_is_given_again_with_the_detail_of_the_photograph(base: Base) -> None:
    adapter, normals = adapter_of(base, at_rim("hole"), at_rim("other")), [NormalImage("good", at_rim("good").image)]
    config = replace(ONCE, part_guidance=3.0, match_mask=False)
    first = sampled(adapter, config, normals=normals)
    second = sampled(adapter, replace(config, refine_strength=0.5), normals=normals)
    for one, other in zip(first, second, strict=True):
        assert not np.array_equal(one.image, other.image)
        both, either = (one.mask & other.mask).sum(), (one.mask | other.mask).sum()
        assert 0.8 < both / either < 1, "the same defect, of which the outline is finer"


def test_without_normals_nothing_is_drawn_again(base: Base) -> None:
    adapter = adapter_of(base, blot("wide", 70), blot("other", 60))
    alone = replace(ONCE, anchored=False)
    config = replace(alone, refine_strength=0.5)
    first, second = (list(sample_pairs(prepare_sampling(adapter, each), 0, 2)) for each in (alone, config))
    assert all(map(same, first, second))


def test_with_bcm_there_is_no_second_pass(base: Base) -> None:
    advised = replace(base, card={"sampling": {"refine_strength": 0.5}})
    found = [resolve_sampling(advised, {}, has_normals=True, bcm=bcm).refine_strength for bcm in (True, False)]
    assert found == [0, 0.5]
    with pytest.raises(UsageError, match="refine_strength is for adapters without bcm"):
        resolve_sampling(base, {"refine_strength": 0.5}, has_normals=True, bcm=True)
