"""BCM in sampling: who shares a background, and that sharing and keeping change nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.diffusion.base import load_base
from model.dualanodiff.adapter import DualAnoDiffAdapter
from model.dualanodiff.sampling.bcm_features import BACKGROUND_SHARE, Backgrounds, Compensation
from model.dualanodiff.sampling.sampler import Sampler, prepare_sampling, sample_pairs
from model.runtime import switches
from model.runtime.progress import Progress
from model.runtime.switches import Switch
from model.types import Candidate
from service.core.errors import UsageError
from service.core.options.common import MaskMethod
from service.core.options.dualanodiff import SamplingConfig
from tests.support.tiny_data import drawn_normal, half_seeing_u2net, tiny_adapter, tiny_u2net

FEW = SamplingConfig(steps=3, batch=2, mask_method=MaskMethod.THRESHOLD)
NORMALS = [drawn_normal(0), drawn_normal(1, 40, 70)]
BORDER = BACKGROUND_SHARE


@pytest.fixture(scope="module")
def adapter(tiny_base: Path) -> DualAnoDiffAdapter:
    return tiny_adapter(load_base(str(tiny_base)), bcm=True)


def prepared(adapter: DualAnoDiffAdapter, config: SamplingConfig = FEW) -> Sampler:
    return prepare_sampling(adapter, config, normals=NORMALS, object_net=half_seeing_u2net())


def compensation(adapter: DualAnoDiffAdapter) -> Compensation:
    made = prepared(adapter).compensation
    assert made is not None
    return made


def same(one: Sequence[Candidate], other: Sequence[Candidate]) -> bool:
    return [each.index for each in one] == [each.index for each in other] and all(
        np.array_equal(a.image, b.image) and np.array_equal(a.part, b.part) for a, b in zip(one, other, strict=True)
    )


def test_backgrounds_differ_from_fifty_to_fifty(adapter: DualAnoDiffAdapter) -> None:
    ours = compensation(adapter)
    anchors = [ours.shared_anchor(number) for number in range(4)]
    assert len({(anchor.normal.name, anchor.window) for anchor in anchors}) > 1
    assert anchors[1] == compensation(adapter).shared_anchor(1)


@pytest.mark.parametrize("guided", [False, True])
def test_pairs_of_one_fifty_share_features_and_others_have_their_own(
    adapter: DualAnoDiffAdapter, *, guided: bool
) -> None:
    ours, step = compensation(adapter), torch.tensor(500)
    with torch.no_grad():
        first, second = (ours.shared([index], guided=guided)(0, step) for index in (BORDER - 1, BORDER))
        across = ours.shared([BORDER - 2, BORDER - 1, BORDER], guided=guided)(0, step)
    for name, rows in across.items():
        expected = torch.cat([first[name], first[name], second[name]] * (2 if guided else 1))
        assert torch.equal(rows, expected)
        assert not torch.equal(first[name], second[name])


def backgrounds(adapter: DualAnoDiffAdapter, room: int) -> Backgrounds:
    ready = prepared(adapter)
    images = [normal.image[:32, :32] for normal in NORMALS]
    return Backgrounds(ready.adapter.model, ready.text[0, :1], images, [7, 8], room=room)


def test_kept_features_are_those_computed_again(adapter: DualAnoDiffAdapter) -> None:
    keeping, forgetting = backgrounds(adapter, 2**20), backgrounds(adapter, 2**20)
    with torch.no_grad():
        for step in (torch.tensor(900), torch.tensor(20)):
            first, second = keeping.features(int(step), step), keeping.features(int(step), step)
            with switches.plain(Switch.KEPT_FEATURES):
                again = forgetting.features(int(step), step)
                assert forgetting.features(int(step), step) is not again
            assert second is first
            assert all(torch.equal(first[name], again[name]) for name in first | again)


def test_no_more_is_kept_than_there_is_room_for(adapter: DualAnoDiffAdapter) -> None:
    with torch.no_grad():
        size = sum(value.nbytes for value in backgrounds(adapter, 0).features(5, torch.tensor(5)).values())
        tight = backgrounds(adapter, 2 * size)
        kept = [tight.features(step, torch.tensor(step)) for step in (900, 600, 300)]
        again = [tight.features(step, torch.tensor(step)) for step in (900, 600, 300)]
        assert [one is other for one, other in zip(again, kept, strict=True)] == [True, True, False]


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_a_later_batch_is_the_same_with_what_earlier_ones_left(adapter: DualAnoDiffAdapter, guidance: float) -> None:
    config = replace(FEW, guidance_scale=guidance)
    whole = list(sample_pairs(prepared(adapter, config), BORDER - 4, BORDER + 3))
    for start in (BORDER - 2, BORDER + 1):
        assert same(list(sample_pairs(prepared(adapter, config), start, BORDER + 3)), whole[start - BORDER + 4 :])


@pytest.mark.parametrize("anchored", [False, True])
def test_the_same_pair_in_a_batch_of_any_size(adapter: DualAnoDiffAdapter, *, anchored: bool) -> None:
    config = replace(FEW, anchored=anchored)
    whole = list(sample_pairs(prepared(adapter, config), BORDER - 2, BORDER + 2))
    for batch in (1, 3):
        other = prepared(adapter, replace(config, batch=batch))
        assert same(list(sample_pairs(other, BORDER - 2, BORDER + 2)), whole)


@pytest.mark.parametrize(("anchored", "start", "notes"), [(True, 0, 1), (True, 2, 0), (False, 0, 0)])
def test_that_bcm_does_little_on_normals_is_said_once(
    adapter: DualAnoDiffAdapter, *, anchored: bool, start: int, notes: int
) -> None:
    items = prepared(adapter, replace(FEW, anchored=anchored)).decoded(start, start + 1)
    said = [item.note for item in items if isinstance(item, Progress) and item.note]
    assert len(said) == notes
    assert all("bcm has next to no effect here" in note for note in said)


@pytest.mark.parametrize("missing", [{"normals": NORMALS}, {"object_net": tiny_u2net()}, {}])
def test_an_adapter_with_bcm_needs_normals_and_a_network(adapter: DualAnoDiffAdapter, missing: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="the adapter was trained with bcm"):
        prepare_sampling(adapter, FEW, **missing)
