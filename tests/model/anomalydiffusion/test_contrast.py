"""Contrast: every candidate's is about that of a real defect, whatever mask it fills."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model.anomalydiffusion.adapter import AnomalyDiffusionAdapter
from model.anomalydiffusion.sampling.contrast import (
    SCALES,
    RealContrast,
    added_contrast,
    measure,
    real_contrast,
    scale_to,
)
from model.anomalydiffusion.sampling.sampler import lay_defect, prepare_sampling
from model.data.windows import make_canvas
from model.diffusion.base import load_base
from model.types import MaskArray
from service.core.options.anomalydiffusion import AnomalySamplingConfig
from tests.support.tiny_anomaly import NORMALS, tiny_adapter
from tests.support.tiny_data import surface


@pytest.fixture(scope="module")
def adapter(tiny_base: Path) -> AnomalyDiffusionAdapter:
    return tiny_adapter(load_base(str(tiny_base)), ("break", "crack"))


def stroke(width: int) -> MaskArray:
    mask = np.zeros((64, 64), np.bool_)
    mask[30 : 30 + width, 8:56] = True
    return mask


@pytest.mark.parametrize("wanted", [0.15, 0.32])
@pytest.mark.parametrize("width", [2, 7])
def test_a_defect_is_laid_with_the_contrast_that_is_wanted(width: int, wanted: float) -> None:
    image, mask = surface(4, 64, 64), stroke(width)
    canvas = make_canvas(image, mask, 1.0, 64, 4, np.random.default_rng(0))
    drawn = image.astype(np.float32) - 40.0 * mask[..., None]
    plain, matched = (
        lay_defect(image, canvas, drawn, image.astype(np.float32), mask, None, 0, contrast)
        for contrast in (None, wanted)
    )
    assert added_contrast(matched, image, mask) == pytest.approx(wanted, rel=0.05)
    assert added_contrast(plain, image, mask) != pytest.approx(wanted, rel=0.05)
    assert np.array_equal(matched[~mask], plain[~mask])


def test_a_scale_keeps_to_its_range() -> None:
    assert scale_to(1e6, lambda scale: scale) == pytest.approx(SCALES[1], rel=0.05)
    assert scale_to(1e-6, lambda scale: scale) == pytest.approx(SCALES[0], rel=0.05)
    assert scale_to(0.7, lambda scale: scale) == pytest.approx(0.7, rel=0.05)


def test_where_nothing_surrounds_a_defect_it_stays_as_it_was_drawn() -> None:
    image, mask = surface(4, 64, 64), np.ones((64, 64), np.bool_)
    assert added_contrast(255 - image, image, mask) == 0
    assert scale_to(0.5, lambda _: added_contrast(255 - image, image, mask)) == 1


def test_a_surfaces_own_contrast_does_not_count() -> None:
    half = np.full((64, 64, 3), 60, np.uint8)
    half[24:40] = 140
    mask = stroke(7)
    darker = np.where(mask[..., None], half // 2, half)
    assert measure(half, mask) > 0.05
    assert added_contrast(half, half, mask) == 0
    assert added_contrast(darker, half, mask) < measure(darker, mask)


def test_contrasts_vary_about_those_of_the_real_defects() -> None:
    real = RealContrast([0.1, 0.4])
    drawn = np.array([real.draw(seed) for seed in range(200)])
    near = np.abs(np.log(drawn[:, None] / np.array(real.known))).min(1)
    assert near.max() < 0.6
    assert 0.3 < np.mean(drawn > 0.2) < 0.7
    assert real.draw(5) == real.draw(5)


def test_every_type_has_the_contrasts_of_its_own_photographs(adapter: AnomalyDiffusionAdapter) -> None:
    found = [real_contrast(adapter, kind) for kind in range(2)]
    for kind, contrast in enumerate(found):
        assert contrast is not None
        assert len(contrast.known) == sum(real.kind == kind for real in adapter.masks)
    grey = [replace(each, image=np.full_like(each.image, 128)) for each in adapter.references]
    assert real_contrast(replace(adapter, references=grey), 0) is None


def test_black_and_white_photographs_have_no_contrast_to_match(adapter: AnomalyDiffusionAdapter) -> None:
    stripes = np.where(np.mgrid[:96, :96][1] % 16 < 6, 0, 255).astype(np.uint8)
    black_and_white = [
        replace(each, image=np.repeat(stripes[: each.mask.shape[0], : each.mask.shape[1], None], 3, 2))
        for each in adapter.references
    ]
    assert real_contrast(replace(adapter, references=black_and_white), 0) is None


def test_a_push_that_the_user_chose_is_left_alone(adapter: AnomalyDiffusionAdapter) -> None:
    matched, chosen = (
        prepare_sampling(adapter, AnomalySamplingConfig(normal_guidance=push), normals=NORMALS).contrasts
        for push in (0.0, 1.2)
    )
    assert all(contrast is not None for contrast in matched)
    assert chosen == [None, None]
