"""What is checked of a mask depends on who chose its place and size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.anomalydiffusion.adapter import AnomalyDiffusionAdapter
from model.diffusion.base import load_base
from model.generation.filter import CandidateFilter
from model.generation.request import GenerationRequest
from model.quality.gate import RejectReason, Verdict
from model.types import Candidate, MaskArray
from service.core.options.anomalydiffusion import AnomalySamplingConfig
from service.core.options.dualanodiff import SamplingConfig as DualAnoDiffSampling
from service.core.places import GivenMask, Places, Region
from tests.support.tiny_anomaly import NORMALS, tiny_adapter
from tests.support.tiny_data import PERMISSIVE, tiny_u2net

SHAPE = NORMALS[0].image.shape[:2]


@pytest.fixture(scope="module")
def adapter(tiny_base: Path) -> AnomalyDiffusionAdapter:
    return tiny_adapter(load_base(str(tiny_base)))


def part(rows: slice, columns: slice) -> MaskArray:
    mask = np.zeros(SHAPE, np.bool_)
    mask[rows, columns] = True
    return mask


def verdict(adapter: AnomalyDiffusionAdapter, mask: MaskArray, places: Places, **asked: Any) -> Verdict:
    """The verdict on a mask that was filled with black."""
    image = NORMALS[0].image.copy()
    image[mask] = 0
    limits, net = (asked.pop(name, None) for name in ("limits", "net"))
    request = GenerationRequest(
        adapter,
        AnomalySamplingConfig(**asked),
        1,
        normals=NORMALS,
        places=places,
        limits=limits or PERMISSIVE,
        object_net=net,
    )
    return CandidateFilter(request).verdict(Candidate(0, 0, image, mask, normal=NORMALS[0].name))


LEFT, RIGHT = part(slice(12, 44), slice(4, 20)), part(slice(20, 30), slice(26, 34))


@pytest.mark.parametrize(
    ("places", "chosen", "faulty"),
    [
        (Places(), {}, True),
        (Places(), {"on_object": False}, False),
        (Places(allowed=[Region(RIGHT)]), {}, False),
        (Places([GivenMask("mine", RIGHT)]), {}, False),
        (Places(forbidden=[Region(LEFT)]), {}, True),
    ],
)
def test_a_defect_beside_the_product_is_a_fault_unless_the_user_wants_it_there(
    adapter: AnomalyDiffusionAdapter,
    monkeypatch: pytest.MonkeyPatch,
    places: Places,
    chosen: dict[str, bool],
    faulty: bool,  # noqa: FBT001  # of a table
) -> None:
    monkeypatch.setattr("model.masks.objects.Objects.in_candidate", lambda *_: LEFT)
    limits = replace(PERMISSIVE, max_off_object=0.3)
    found = verdict(adapter, RIGHT, places, limits=limits, net=tiny_u2net(), **chosen)
    assert found.reasons == ((RejectReason.OFF_OBJECT,) if faulty else ())


@pytest.mark.parametrize("on_object", [True, False])
def test_dualanodiffs_defects_beside_the_product_are_faults_unless_the_user_says_otherwise(*, on_object: bool) -> None:
    assert DualAnoDiffSampling(on_object=on_object).on_product == on_object
    assert AnomalySamplingConfig(on_object=on_object).on_product == on_object


def test_on_photographs_of_two_levels_no_defect_lies_beside_the_product(
    adapter: AnomalyDiffusionAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There a network takes a part of a pattern for one."""
    monkeypatch.setattr("model.masks.objects.Objects.in_candidate", lambda *_: LEFT)
    limits = replace(PERMISSIVE, max_off_object=0.3)
    boards = [
        replace(real, image=np.where(real.mask[..., None], np.uint8(0), np.full_like(real.image, 255)))
        for real in adapter.references
    ]
    found = verdict(replace(adapter, references=boards), RIGHT, Places(), limits=limits, net=tiny_u2net())
    assert RejectReason.OFF_OBJECT not in found.reasons


def test_size_and_border_of_a_mask_that_was_given_are_as_the_user_wants_them(adapter: AnomalyDiffusionAdapter) -> None:
    limits = replace(PERMISSIVE, min_area_ratio=0.5, max_area_ratio=2.0, border_ratio=0.0, min_border_share=0.1)
    for mask in (part(slice(0, 2), slice(10, 14)), part(slice(0, 50), slice(0, 40))):
        chosen = set(verdict(adapter, mask, Places(), limits=limits).reasons)
        assert RejectReason.BORDER_HUGGING in chosen
        assert chosen & {RejectReason.MASK_TOO_SMALL, RejectReason.MASK_TOO_LARGE}
        assert verdict(adapter, mask, Places([GivenMask("mine", mask)]), limits=limits).accepted


def test_the_shape_of_a_mask_that_was_given_is_as_the_user_wants_it(adapter: AnomalyDiffusionAdapter) -> None:
    line = part(slice(20, 22), slice(6, 34))
    image = NORMALS[0].image.copy()
    image[line] //= 3  # as dark as the real ones
    candidate = Candidate(0, 0, image, line, normal=NORMALS[0].name)
    limits = replace(PERMISSIVE, max_unlikeness=5.5)
    reasons = []
    for places in (Places(), Places([GivenMask("mine", line)])):
        request = GenerationRequest(adapter, AnomalySamplingConfig(), 1, normals=NORMALS, places=places, limits=limits)
        reasons.append(CandidateFilter(request).verdict(candidate).reasons)
    assert reasons == [(RejectReason.UNLIKE_REAL,), ()]


@pytest.mark.parametrize(("size", "reason"), [(0.3, RejectReason.MASK_TOO_SMALL), (4.0, RejectReason.MASK_TOO_LARGE)])
def test_a_defect_of_a_size_that_was_asked_for_is_neither_too_small_nor_too_large(
    adapter: AnomalyDiffusionAdapter, size: float, reason: RejectReason
) -> None:
    real = np.mean([reference.mask.mean() for reference in adapter.references])
    side = size * np.sqrt(real * np.prod(SHAPE))
    mask = part(slice(4, 4 + round(side)), slice(2, 2 + round(side)))
    limits = replace(PERMISSIVE, min_area_ratio=0.2, max_area_ratio=4.0)
    assert verdict(adapter, mask, Places(), limits=limits).reasons == (reason,)
    assert verdict(adapter, mask, Places(), limits=limits, sizes=(min(size, 0.8), max(size, 1.25))).accepted
    assert verdict(adapter, mask, Places(), limits=limits, sizes=(0.9, 1.1)).reasons == (reason,)
