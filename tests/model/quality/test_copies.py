"""Copies of a defect are found however they lie; other defects are not taken for copies."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from model.quality.copies import KnownDefects, find_defect, usual_likeness
from model.types import ImageArray, MaskArray

SIDE = 64


def defect(seed: int) -> tuple[ImageArray, MaskArray]:
    """A lobed blot with a mottled inside."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    angle, phase = np.arctan2(rows, columns), rng.uniform(0, 6, 2)
    mask = np.hypot(rows, columns) < 13 * (1 + 0.3 * np.cos(3 * angle + phase[0]) + 0.2 * np.cos(2 * angle + phase[1]))
    mottle = ndimage.gaussian_filter(rng.normal(0, 90, (SIDE, SIDE)), 2)
    grey = np.clip(130 + mask * (mottle - 40), 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2), mask


def known(*seeds: int) -> KnownDefects:
    defects = KnownDefects()
    for seed in seeds:
        defects.add(find_defect(*defect(seed)))
    return defects


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("mirrored", [False, True])
def test_right_angles_and_mirrors_cost_nothing(turns: int, *, mirrored: bool) -> None:
    image, mask = (np.rot90(each, turns) for each in defect(1))
    if mirrored:
        image, mask = image[:, ::-1], mask[:, ::-1]
    assert known(0, 1, 2).likeness(find_defect(image, mask)) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("degrees", [15, 40, 200])
@pytest.mark.parametrize("scale", [1.0, 1.2])
def test_any_turn_and_another_size_and_brightness_are_found(degrees: float, scale: float) -> None:
    image, mask = defect(1)
    angle, middle = np.deg2rad(degrees), (SIDE - 1) / 2
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / scale
    offset = middle - turn @ [middle, middle]
    grey = ndimage.affine_transform(image[..., 0].astype(float), turn, offset, order=1, mode="nearest")
    turned = ndimage.affine_transform(mask.astype(float), turn, offset, order=1) > 0.5
    brighter = np.repeat(np.clip(grey * 0.8 + 30, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
    assert known(0, 1, 2).likeness(find_defect(brighter, turned)) > 0.92


def test_other_defects_are_no_copies() -> None:
    others = known(*range(200))
    assert max(others.likeness(find_defect(*defect(seed))) for seed in range(200, 210)) < 0.92


def test_flat_defects_are_told_apart_by_their_outlines() -> None:
    _, blot = defect(1)
    bar = np.zeros_like(blot)
    bar[28:36, 10:54] = True
    plain = np.full((SIDE, SIDE, 3), 20, np.uint8)
    defects = KnownDefects()
    defects.add(find_defect(plain, blot))
    assert defects.likeness(find_defect(plain, blot)) == pytest.approx(1, abs=1e-3)
    assert defects.likeness(find_defect(plain, bar)) < 0.8


def test_nothing_is_like_nothing() -> None:
    assert KnownDefects().likeness(find_defect(*defect(1))) == 0


def test_one_defect_photographed_twice_does_not_make_its_kind_alike() -> None:
    different = [find_defect(*defect(seed)) for seed in (0, 1, 2)]
    again = find_defect(*defect(0))
    assert usual_likeness([*different, again]) == pytest.approx(usual_likeness(different), abs=0.2)
    assert usual_likeness([*different, again]) < 0.8
    assert usual_likeness([different[0], again]) == pytest.approx(1, abs=1e-3)
    assert usual_likeness(different[:1]) == usual_likeness([]) == 0
