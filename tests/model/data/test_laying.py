"""What is laid on a photograph has grain: its own where little changed, the real defects' where much did."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from scipy import ndimage

from model.data.detail import PATCH, RealDetail, Redrawn, chroma, draw_detail, find_tint, learn_detail
from model.data.laying import CHROMA_BLUR, Generated, change_by
from model.data.two_levels import TwoLevels
from tests.support.tiny_data import surface

SIDE = 64
ALL = np.ones((SIDE, SIDE), np.bool_)


def grainy(seed: int, level: float, deviation: float) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(level, deviation, (SIDE, SIDE, 1))
    return np.repeat(noise, 3, axis=2).clip(0, 255).astype(np.uint8)


def even(level: float) -> np.ndarray:
    return np.full((SIDE, SIDE, 3), level, np.float32)


def of(*kinds: tuple[float, float]) -> RealDetail:
    """Detail of defects of a mean level and a deviation each."""
    found = learn_detail([Redrawn(grainy(seed, *kind), even(kind[0]), ALL) for seed, kind in enumerate(kinds)])
    assert found is not None
    return found


def drawn_on(found: RealDetail, smooth: np.ndarray, mask: np.ndarray, where: np.ndarray, seed: int = 0) -> np.ndarray:
    return draw_detail(found, smooth, mask, where, np.random.default_rng(seed))[0]


@pytest.fixture(scope="module")
def detail() -> RealDetail:
    return of((60, 12), (180, 3))


def test_drawn_detail_is_as_strong_as_that_of_the_real_defects_that_look_alike(detail: RealDetail) -> None:
    halves = even(60)
    halves[:, SIDE // 2 :] = 180
    drawn = drawn_on(detail, halves, ALL, ALL)
    dark, bright = drawn[:, : SIDE // 2 - PATCH], drawn[:, SIDE // 2 + PATCH :]
    assert dark.std() == pytest.approx(12, rel=0.2)
    assert bright.std() == pytest.approx(3, rel=0.2)
    assert abs(drawn.mean()) < 2


def test_the_profile_of_a_thin_defect_is_laid_along_its_mask() -> None:
    line = np.zeros((SIDE, SIDE), np.bool_)
    line[30:33] = True
    sharp = np.where(line[..., None], 60, 120).astype(np.uint8)
    crack = learn_detail([Redrawn(sharp, ndimage.gaussian_filter(sharp.astype(np.float32), (2, 2, 0)), line)])
    assert crack is not None
    mask = np.roll(line, 13, axis=0)
    faint = ndimage.gaussian_filter(np.roll(sharp, 13, axis=0).astype(np.float32), (2, 2, 0))
    drawn = drawn_on(crack, faint, mask, ndimage.binary_dilation(mask, iterations=3))
    profile = (faint + drawn).mean((1, 2))
    assert profile[mask.all(1)] == pytest.approx(60, abs=6)


def test_detail_covers_all_that_is_asked_for_and_is_drawn_anew_for_every_candidate(detail: RealDetail) -> None:
    where = np.zeros((SIDE, SIDE), np.bool_)
    where[:3, :3] = where[-2:, 5:] = where[20:40, 33] = True
    first, again, other = (drawn_on(detail, even(60), ALL, where, seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert (first[where] != 0).any(axis=-1).mean() > 0.95


def test_all_detail_of_a_defect_comes_from_one_real_one_that_looks_alike() -> None:
    kinds = [(60, 12), (61, 3), (180, 25)]
    crops = [Redrawn(grainy(seed, *kind), even(kind[0]), ALL, seed) for seed, kind in enumerate(kinds)]
    found = learn_detail(crops)
    assert found is not None
    halves = even(60)
    halves[:, SIDE // 2 :] = 61
    drawn = [drawn_on(found, halves, ALL, ALL, seed) for seed in range(20)]
    deviations = [(each[:, : SIDE // 2 - PATCH].std(), each[:, SIDE // 2 + PATCH :].std()) for each in drawn]
    assert all(right == pytest.approx(left, rel=0.3) for left, right in deviations)
    assert {round(left / 9) for left, _ in deviations} == {0, 1}  # about 3, or about 12; never 25


def test_detail_has_no_colours() -> None:
    grain = np.random.default_rng(0).normal(0, 8, (SIDE, SIDE, 3))
    rust = (np.array((90.0, 60.0, 40.0)) + grain).clip(0, 255).astype(np.uint8)
    found = learn_detail([Redrawn(rust, even(60), ALL)])
    assert found is not None
    drawn = drawn_on(found, even(60), ALL, ALL)
    assert drawn.shape == (SIDE, SIDE, 1)
    assert drawn.mean() == pytest.approx(10 / 3, abs=1.5)
    assert drawn.std() == pytest.approx(8 / np.sqrt(3), rel=0.2)


def test_there_is_none_where_there_is_no_room_for_a_patch(detail: RealDetail) -> None:
    small = np.ones((PATCH - 1, 40), np.bool_)
    narrow = Redrawn(grainy(0, 60, 12)[: PATCH - 1, :40], even(60)[: PATCH - 1, :40], small)
    assert learn_detail([narrow]) is None
    assert not drawn_on(detail, narrow.smooth, small, small).any()
    nothing = np.zeros((SIDE, SIDE), np.bool_)
    assert not drawn_on(detail, even(60), ALL, nothing).any()
    assert learn_detail([Redrawn(grainy(0, 60, 12), even(60), nothing)]) is None


def test_detail_of_a_thin_defect_does_not_suit_a_wide_one_whose_surface_keeps_its_own() -> None:
    thin, wide = np.zeros((SIDE, SIDE), np.bool_), np.zeros((SIDE, SIDE), np.bool_)
    thin[30:32], wide[24:40] = True, True
    image = np.where(thin[..., None], np.uint8(20), np.uint8(120)).repeat(3, 2)
    found = learn_detail([Redrawn(image, even(120), thin)])
    assert found is not None
    suits = [draw_detail(found, even(120), mask, mask, np.random.default_rng(0))[1][mask] for mask in (thin, wide)]
    assert suits[0].min() == 1
    assert suits[1].mean() < 0.3
    good = grainy(0, 120, 9)
    smooth = ndimage.gaussian_filter(good.astype(np.float32), (3, 3, 0))
    generated = Generated(even(60), smooth, wide.astype(np.float32), filled=True)
    change = change_by(generated, good, wide, (SIDE, SIDE), found, seed=0)
    middle = np.s_[31:33]
    assert (good + change.whole)[middle].std() == pytest.approx((good - smooth)[middle].std(), rel=0.2)


def laid(
    image: np.ndarray,
    level: np.ndarray,
    detail: RealDetail | None = None,
    *,
    filled: bool = False,
) -> np.ndarray:
    """A photograph, in the middle of which something was generated."""
    smooth = ndimage.gaussian_filter(image.astype(np.float32), (3, 3, 0))
    alpha = np.zeros((SIDE, SIDE), np.float32)
    alpha[16:48, 16:48] = 1
    mask = alpha > 0
    change = change_by(Generated(level, smooth, alpha, filled), image, mask, (SIDE, SIDE), detail, seed=0)
    return image + change.whole


def test_slight_changes_keep_the_photographs_grain_and_strong_ones_replace_it(detail: RealDetail) -> None:
    image = surface(4, SIDE, SIDE)
    smooth = ndimage.gaussian_filter(image.astype(np.float32), (3, 3, 0))
    inner = np.s_[20:44, 20:44]
    assert np.allclose(laid(image, smooth + 6, detail)[inner], image[inner] + 6.0, atol=0.01)
    assert np.allclose(laid(image, even(20))[inner].mean(-1), 20, atol=0.01)
    assert np.array_equal(laid(image, even(20), detail)[:15], image[:15])
    assert laid(image, even(60), detail)[inner].std() == pytest.approx(12, rel=0.25)


def test_a_filled_mask_replaces_the_surface_sooner_than_a_window_that_is_drawn_anew() -> None:
    image = np.repeat(surface(4, SIDE, SIDE)[..., 1:2], 3, 2)
    smooth, inner = ndimage.gaussian_filter(image.astype(np.float32), (3, 3, 0)), np.s_[20:44, 20:44]
    own = (image - smooth)[inner].std()
    filled, drawn = ((laid(image, smooth + 18, filled=each) - smooth)[inner].std() for each in (True, False))
    assert filled == pytest.approx(0, abs=0.01)
    assert drawn > 0.7 * own


def test_the_colours_that_an_autoencoder_loses_of_a_surface_stay_on_a_defect() -> None:
    blue, grey = np.full((SIDE, SIDE, 3), (90, 100, 140), np.uint8), np.full((SIDE, SIDE), 30.0)
    alpha = np.ones((SIDE, SIDE), np.float32)
    greyed = Generated(even(30), even(110), alpha, filled=True)
    change = change_by(greyed, blue, ALL, (SIDE, SIDE), None, seed=0).whole
    assert np.allclose((blue + change).mean(-1), grey, atol=0.01)
    assert np.allclose(blue + change, np.array((10, 20, 60)), atol=0.01)


SURFACES = ((-6, 10, -4), (4, 6, -10), (9, -8, -1), (-7, 9, -2), (-3, 11, -8))
"""Colours that are lost of the surfaces on five photographs, grey levels."""

HOLES = ((5, 1, -6), (6, 0, -6), (5, 1, -6), (4, 2, -6), (-1, 6, -5))
"""Colours that are lost of the holes in them, the last of which lies in another light."""

NAMES = "abcde"


def redrawn(
    lost: Sequence[float], lost_around: Sequence[float], photograph: str, width: int = 24, noise: float = 0.0
) -> Redrawn:
    """Draw a bar of which other colours are lost than of the surface around it."""
    bar = np.zeros((SIDE, SIDE), np.bool_)
    bar[16 : 16 + width, 10:54] = True
    smooth = even(100) - np.where(bar[..., None], np.float32(lost), np.float32(lost_around))
    rng = np.random.default_rng(ord(photograph))
    smooth += noise * rng.normal(size=3).astype(np.float32) * bar[..., None]
    return Redrawn(np.full((SIDE, SIDE, 3), 100, np.uint8), smooth, bar, photograph=photograph)


def test_a_hole_gets_the_colours_that_are_lost_of_what_shows_through() -> None:
    tinted = learn_detail([redrawn(*lost, name) for *lost, name in zip(HOLES, SURFACES, NAMES, strict=True)])
    assert tinted is not None
    assert tinted.tint == pytest.approx((5, 1, -6), abs=0.4)
    image = surface(4, SIDE, SIDE)
    laid_on = laid(image, even(40), tinted, filled=True)
    colours = chroma(laid_on)[24:40, 24:40]
    blurred = chroma(ndimage.gaussian_filter(image.astype(np.float32), (3, 3, 0)))[24:40, 24:40]
    # What was drawn is grey, so that all colours come from the tint; those of the coarse change are blurred.
    assert np.allclose(colours, tinted.tint, atol=0.5 * np.abs(blurred).std())
    assert np.array_equal(laid_on[:15], image[:15])


def test_a_faint_defect_has_no_tint() -> None:
    tinted = learn_detail([redrawn(*lost, name) for *lost, name in zip(HOLES, SURFACES, NAMES, strict=True)])
    image = surface(4, SIDE, SIDE)
    smooth = ndimage.gaussian_filter(image.astype(np.float32), (3, 3, 0))
    assert np.allclose(laid(image, smooth + 3, tinted, filled=True)[20:44, 20:44], image[20:44, 20:44] + 3.0, atol=0.01)


@pytest.mark.parametrize(("noise", "found"), [(0.5, True), (8.0, False)])
def test_defects_must_tell_far_more_of_each_other_than_their_surfaces_do(*, noise: float, found: bool) -> None:
    crops = [redrawn((5, 1, -6), around, name, noise=noise) for around, name in zip(SURFACES, NAMES, strict=True)]
    assert (find_tint(crops) is not None) == found


def test_what_loses_the_colours_of_its_surface_or_is_thin_or_seen_once_has_no_tint() -> None:
    assert find_tint([redrawn(around, around, name) for around, name in zip(SURFACES, NAMES, strict=True)]) is None
    crops = list(zip(SURFACES, NAMES, strict=True))
    assert find_tint([redrawn((5, 1, -6), around, name) for around, name in crops]) is not None
    assert find_tint([redrawn((5, 1, -6), around, name, width=3) for around, name in crops]) is None
    assert find_tint([redrawn((5, 1, -6), around, "a") for around in SURFACES]) is None
    grey = np.random.default_rng(0).normal(0, 3, (5, 2))
    greys = [redrawn((inside,) * 3, (around,) * 3, name) for (inside, around), name in zip(grey, NAMES, strict=True)]
    assert find_tint(greys) is None


def test_black_and_white_photographs_have_no_tint() -> None:
    holes = [redrawn(*lost, name) for *lost, name in zip(HOLES, SURFACES, NAMES, strict=True)]
    found = learn_detail(holes, TwoLevels(0, 255))
    assert found is not None
    assert found.tint is None


def test_a_filled_mask_keeps_the_fine_colours_of_its_surface(detail: RealDetail) -> None:
    noise = np.random.default_rng(5).normal(0, 6, (SIDE, SIDE, 3))
    image = (120 + noise).clip(0, 255).astype(np.uint8)
    filled = laid(image, even(60), detail, filled=True)
    inner = np.s_[20:44, 20:44]
    colours, own = (values - values.mean(-1, keepdims=True) for values in (filled, image.astype(float)))
    smooth = ndimage.gaussian_filter(image.astype(np.float32), (3, 3, 0))
    tint = ndimage.gaussian_filter(smooth - smooth.mean(-1, keepdims=True), (CHROMA_BLUR, CHROMA_BLUR, 0))
    assert np.allclose((colours - own)[inner], -tint[inner], atol=0.05)


def test_colours_of_a_filled_defect_are_coarse_and_end_where_it_fades() -> None:
    image, alpha = np.full((SIDE, SIDE, 3), 120, np.uint8), np.zeros((SIDE, SIDE), np.float32)
    alpha[20:44, 20:44] = 1
    checks = np.where((np.mgrid[:SIDE, :SIDE].sum(0) % 2 == 0)[..., None], np.float32(30), np.float32(-30))
    red = even(80) + checks * np.array((1, 0, -1), np.float32)
    generated = Generated(red, even(120), alpha, filled=True)
    coarse = change_by(generated, image, alpha > 0, (SIDE, SIDE), None, seed=0).coarse
    assert np.abs(coarse[24:40, 24:40] + 40).max() < 1
    edge = even(80)
    edge[:32] += np.array((30, 0, -30), np.float32)
    sharp = change_by(Generated(edge, even(120), alpha, filled=True), image, alpha > 0, (SIDE, SIDE), None, seed=0)
    reds = sharp.coarse[:, 30, 0]
    assert 5 < reds[31] - reds[32] < 20
    assert reds[22] - reds[41] == pytest.approx(30, abs=0.5)
    assert not sharp.coarse[alpha == 0].any()


@pytest.mark.parametrize("filled", [False, True])
def test_a_part_that_ends_at_the_photographs_border_is_that_of_a_whole_one(*, filled: bool) -> None:
    image, colours = surface(4, SIDE, SIDE), surface(5, SIDE // 2, SIDE // 2).astype(np.float32)
    generated = Generated(colours, even(100)[: SIDE // 2, : SIDE // 2], np.ones((SIDE // 2,) * 2, np.float32), filled)
    whole, cut = (
        change_by(generated, image[:height, :width], ALL[:height, :width], (SIDE, SIDE), None, seed=0).whole
        for height, width in ((SIDE, SIDE), (50, 57))
    )
    assert np.array_equal(cut, whole[:50, :57])
