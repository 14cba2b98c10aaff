"""Detail inside a defect against its surroundings: what is blurred has less, whatever its contrast."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from model.evaluation.sharpness import inner_sharpness
from model.types import ImageArray, MaskArray

MASK = np.zeros((120, 160), np.bool_)
MASK[40:80, 50:100] = True


def grainy(seed: int, deviation: float = 6.0) -> ImageArray:
    noise = np.random.default_rng(seed).normal(0, deviation, (120, 160, 1))
    return np.clip(120 + noise, 0, 255).astype(np.uint8).repeat(3, axis=2)


def blurred(image: ImageArray, mask: MaskArray, deviation: float = 2.0) -> ImageArray:
    soft = ndimage.gaussian_filter(image.astype(float), (deviation, deviation, 0))
    return np.where(mask[..., None], soft, image).astype(np.uint8)


def test_a_defect_with_the_grain_of_its_surroundings_has_sharpness_one() -> None:
    dark = grainy(1)
    dark[MASK] -= 60
    assert inner_sharpness([(grainy(0), MASK)]) == pytest.approx(1, abs=0.1)
    assert inner_sharpness([(dark, MASK)]) == pytest.approx(1, abs=0.25)


def test_a_blurred_defect_has_less_and_a_noisier_one_more() -> None:
    assert (inner_sharpness([(blurred(grainy(0), MASK), MASK)]) or 1) < 0.4
    noisy = np.where(MASK[..., None], grainy(2, 18.0), grainy(0))
    assert (inner_sharpness([(noisy, MASK)]) or 0) > 2


def test_grain_counts_in_proportion_to_the_surroundings() -> None:
    coarse, fine = (inner_sharpness([(grainy(0, deviation), MASK)]) for deviation in (12.0, 4.0))
    assert coarse == pytest.approx(fine, rel=0.1)


def test_defects_are_averaged_in_proportion_and_those_without_a_ring_do_not_count() -> None:
    sharp, soft = (grainy(0), MASK), (blurred(grainy(0), MASK), MASK)
    one, other, both = inner_sharpness([sharp]), inner_sharpness([soft]), inner_sharpness([sharp, soft])
    assert one is not None
    assert other is not None
    assert both == pytest.approx(np.sqrt(one * other))
    full = (grainy(0), np.ones_like(MASK))
    nothing = (grainy(0), np.zeros_like(MASK))
    assert inner_sharpness([sharp, full, nothing]) == one
    assert inner_sharpness([full, nothing]) is None


def test_plain_pictures_have_the_detail_of_rounding_on_both_sides() -> None:
    assert inner_sharpness([(np.full((120, 160, 3), 90, np.uint8), MASK)]) == 1
