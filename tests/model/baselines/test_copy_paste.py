"""Copies of real defects: whose pixels they are, where they may lie, and the sketch that DualAnoDiff starts from."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from model.baselines.adapter import BaselineAdapter
from model.baselines.copy_paste import draw
from model.baselines.sampler import Draft, Scene
from model.data.blending import faded, lay, membrane
from model.data.copy_paste import draw_copy_paste
from model.data.crops import resize_image
from model.data.cutout import SURROUNDINGS, Changes, changed, cut_out
from model.data.drawing import draw_in_turn
from model.data.placement import NormalImage, draw_anchor, inner_border, paste
from model.data.references import make_references
from model.data.two_levels import TwoLevels
from model.diffusion.base import Base, load_base
from model.runtime.seeding import pair_seed
from model.types import Pair
from service.core.options.baselines import CollectionConfig, CopyPasteConfig
from tests.support.tiny_data import drawn_normal, drawn_pair, surface

NONE = (False, False)


@pytest.fixture(scope="module")
def base(tiny_base: Path) -> Base:
    return load_base(str(tiny_base))


def scene(base: Base, pairs: list[Pair], normals: list[NormalImage]) -> Scene:
    config = CollectionConfig(resolution=base.resolution, view="window")
    references, placements = make_references(pairs, config.view, config.resolution, config.seed)
    return Scene(BaselineAdapter(base, config, {}, pairs, references, placements), normals, None)


def draft(place: Scene, index: int) -> Draft:
    seed = pair_seed(0, index)
    return Draft(place, draw_in_turn(place.normals, index, 0), index, seed, np.random.default_rng(seed))


def test_specks_are_not_copied() -> None:
    mask = np.zeros((400, 400), np.bool_)
    mask[40:240, 40:240] = True
    mask[300, 300] = True
    for seed in range(8):
        cutout = cut_out(Pair("speck", surface(0, 400, 400), mask), NONE, np.random.default_rng(seed))
        assert cutout.mask.sum() == 200**2


def test_a_cutout_shows_the_defect_with_its_surroundings() -> None:
    pair = drawn_pair(3)
    cutout = cut_out(pair, NONE, np.random.default_rng(0))
    assert cutout.mask.sum() == pair.mask.sum()
    assert np.array_equal(cutout.image[cutout.mask], pair.image[pair.mask])
    extent = np.ptp(np.argwhere(pair.mask), axis=0) + 1
    assert cutout.mask.shape == tuple(extent + 2 * SURROUNDINGS)


def test_of_several_defects_one_or_all_are_copied() -> None:
    mask = np.zeros((60, 60), np.bool_)
    mask[5:15, 5:15] = True
    mask[40:50, 40:50] = True
    pair = Pair("two", surface(0, 60, 60), mask)
    areas = {int(cut_out(pair, NONE, np.random.default_rng(seed)).mask.sum()) for seed in range(20)}
    assert areas == {100, 200}


def test_copies_on_black_and_white_photographs_are_black_and_white(base: Base) -> None:
    white = np.full((96, 96, 3), 255, np.uint8)
    mask = np.zeros((96, 96), np.bool_)
    mask[40:55, 30:60] = True
    pair = Pair("spur", np.where(mask[..., None], np.uint8(0), white), mask)
    place = replace(scene(base, [pair], [NormalImage("board", white)]), levels=TwoLevels(0, 255))
    for index in range(4):
        made = draw(draft(place, index), CopyPasteConfig())
        assert set(np.unique(made.image)) == {0, 255}
        assert (made.image[~made.mask] == 255).all()


def test_a_copy_on_a_circuit_joins_what_the_real_short_joined_on_a_board_that_has_it(base: Base) -> None:
    def board(*columns: int) -> np.ndarray:
        image = np.full((96, 96, 3), 255, np.uint8)
        for column in columns:
            image[:, column : column + 10] = 0
        return image

    mask = np.zeros((96, 96), np.bool_)
    mask[40:46, 40:60] = True
    pair = Pair("short", np.where(mask[..., None], np.uint8(0), board(30, 60)), mask)
    normals = [NormalImage("bare", board()), NormalImage("pair", board(20, 50)), NormalImage("single", board(50))]
    place = replace(scene(base, [pair], normals), levels=TwoLevels(0, 255))
    made = [draw(draft(place, index), CopyPasteConfig()) for index in range(8)]
    assert {each.normal for each in made} == {"pair"}
    joined = [ndimage.label(each.image[..., 0] == 0)[1] == 1 for each in made]
    assert sum(joined) >= 6, "of the sizes that were tried none may fit"


def test_hairlines_stay_whole_where_that_is_asked_for() -> None:
    mask = np.zeros((80, 200), np.bool_)
    mask[40, 20:180] = True
    pair = Pair("line", surface(0, 80, 200), mask)
    parts = []
    for whole, seed in itertools.product((False, True), range(6)):
        rng = np.random.default_rng(seed)
        changes = Changes((0.6, 0.6), (0.3, 0.3), 0.05, whole_lines=whole)
        found = changed(cut_out(pair, NONE, rng), (80, 200), rng, changes).mask
        parts.append(ndimage.label(found, np.ones((3, 3)))[1])
        assert found.sum() < 3 * 100
    assert max(parts[6:]) == 1 < max(parts[:6])


def test_a_long_defect_is_bent_without_folding() -> None:
    """Along a line that is bent, every column shows it once, hardly thicker than it was."""
    mask = np.zeros((120, 600), np.bool_)
    mask[60:64, 20:580] = True
    pair = Pair("line", surface(0, 120, 600), mask)
    for seed in range(4):
        rng = np.random.default_rng(seed)
        found = changed(cut_out(pair, NONE, rng), (120, 600), rng, Changes((1, 1), (0, 0), 0.05)).mask
        thick = found.sum(0)
        assert np.median(thick[thick > 0]) < 7
        assert np.percentile(thick, 95) < 12


@pytest.mark.parametrize("side", ["top", "left", "bottom", "right"])
def test_a_defect_at_the_border_stays_there(base: Base, side: str) -> None:
    mask = np.zeros((48, 40), np.bool_)
    mask[0:12, 14:22] = True
    turns = {"top": 0, "left": 1, "bottom": 2, "right": 3}[side]
    image = surface(0)
    image[mask] //= 3
    pair = Pair("edge", np.ascontiguousarray(np.rot90(image, turns)), np.ascontiguousarray(np.rot90(mask, turns)))
    place = scene(base, [pair], [drawn_normal(0)])
    border = {"top": np.s_[0], "left": np.s_[:, 0], "bottom": np.s_[-1], "right": np.s_[:, -1]}[side]
    opposite = {"top": np.s_[-1], "left": np.s_[:, -1], "bottom": np.s_[0], "right": np.s_[:, 0]}[side]
    for index in range(12):
        found = draw(draft(place, index), CopyPasteConfig()).mask
        assert found[border].any() or found[opposite].any()
        assert found[border].any() != found[opposite].any()


def test_a_defect_that_spans_its_photograph_spans_the_normal(base: Base) -> None:
    mask = np.zeros((48, 40), np.bool_)
    mask[:, 18:22] = True
    image = surface(0)
    image[mask] //= 3
    place = scene(base, [Pair("through", image, mask)], [drawn_normal(0)])
    for index in range(8):
        assert draw(draft(place, index), CopyPasteConfig()).mask.any(1).all()


def test_other_defects_lie_inside(base: Base) -> None:
    place = scene(base, [drawn_pair(1)], [drawn_normal(0)])
    for index in range(12):
        mask = draw(draft(place, index), CopyPasteConfig()).mask
        assert mask[1:-1, 1:-1].sum() == mask.sum()


def test_where_no_product_is_found_defects_lie_near_the_real_place(base: Base) -> None:
    mask = np.zeros((100, 100), np.bool_)
    mask[8:14, 80:86] = True
    image = surface(0, 100, 100)
    image[mask] //= 3
    place = scene(base, [Pair("corner", image, mask)], [drawn_normal(0, 200, 200)])
    config = replace(place.adapter.config, flip_horizontal=False, flip_vertical=False)
    place = replace(place, adapter=replace(place.adapter, config=config))
    centres = [np.argwhere(draw(draft(place, index), CopyPasteConfig()).mask).mean(0) for index in range(40)]
    assert (np.min(centres, 0) > (0, 110)).all()
    assert (np.max(centres, 0) < (80, 200)).all()
    assert (np.ptp(centres, axis=0) > 40).all()


def test_a_defect_larger_than_the_normal_is_cut_by_it(base: Base) -> None:
    place = scene(base, [drawn_pair(1, 200, 200)], [drawn_normal(0, 24, 24)])
    assert draw(draft(place, 0), CopyPasteConfig()).mask.any()


def test_sizes_stay_within_their_range() -> None:
    pair = drawn_pair(3, 96, 96)
    cutout = cut_out(pair, NONE, np.random.default_rng(0))
    areas = [
        changed(cutout, (400, 400), np.random.default_rng(seed)).mask.sum() / pair.mask.sum() for seed in range(30)
    ]
    assert 0.6 < min(areas) < 0.8
    assert 1.25 < max(areas) < 1.75


def test_a_copy_is_as_bright_as_its_surroundings(base: Base) -> None:
    pair = drawn_pair(0)
    dark = NormalImage("dark", drawn_normal(0).image // 2)
    place = scene(base, [pair], [dark])
    for index in range(6):
        candidate = draw(draft(place, index), CopyPasteConfig(blending="none"))
        ratio = candidate.image[candidate.mask].mean() / dark.image.mean()
        assert abs(ratio - pair.image[pair.mask].mean() / pair.image[~pair.mask].mean()) < 0.1


def test_a_pattern_of_black_and_white_stays_one(base: Base) -> None:
    stripes = np.where((np.arange(64) // 8 % 2)[:, None, None] == 1, np.uint8(255), np.zeros((64, 64, 3), np.uint8))
    mask = np.zeros((64, 64), np.bool_)
    mask[20:36, 20:36] = True
    image = stripes.copy()
    image[mask] = 255
    place = scene(base, [Pair("gap", image, mask)], [NormalImage("stripes", stripes)])
    for index in range(6):
        candidate = draw(draft(place, index), CopyPasteConfig(blending="none"))
        assert np.median(candidate.image[candidate.mask]) == 255


def test_deformed_copies_are_the_sketches_that_sampling_starts_from(base: Base) -> None:
    normals = [drawn_normal(0), drawn_normal(1)]
    place = scene(base, [drawn_pair(0), drawn_pair(1)], normals)
    adapter, side = place.adapter, base.resolution
    for index in range(4):
        rng = np.random.default_rng(pair_seed(0, index))
        anchor = draw_anchor([draw_in_turn(normals, index, 0)], adapter.placements, rng, (True, True))
        window = resize_image(anchor.pixels, side)
        inner = inner_border(anchor, side, base.factor)
        sketch = draw_copy_paste(adapter.references[anchor.place], window, inner, anchor.mirrored, rng)
        image, mask = paste(anchor, sketch.image, window, sketch.mask)
        candidate = draw(draft(place, index), CopyPasteConfig(deform=True))
        assert np.array_equal(candidate.image, image)
        assert np.array_equal(candidate.mask, mask)
        assert candidate.window == anchor.window.box


def test_a_hard_edge_is_the_patch_and_nothing_else() -> None:
    picture, patch = surface(0), surface(1).astype(np.float32)
    mask = np.zeros(picture.shape[:2], np.bool_)
    mask[10:30, 10:30] = True
    laid = lay(patch, picture, mask, mask, "none")
    assert np.array_equal(laid[mask], patch[mask])
    assert np.array_equal(laid[~mask], picture[~mask])


def test_a_patch_does_not_fade_over_another_defect() -> None:
    mask = np.zeros((30, 30), np.bool_)
    mask[10:20, 10:20] = True
    other = np.zeros_like(mask)
    other[10:20, 21:25] = True
    picture, patch = np.zeros((30, 30, 3), np.uint8), np.full((30, 30, 3), 200, np.float32)
    laid = lay(patch, picture, mask, mask | other, "feather")
    assert (laid[other] == 0).all()
    assert (laid[15, 8:10] > 0).all()
    assert (faded(mask)[mask] == 1).all()


def test_poisson_keeps_gradients_and_meets_the_picture() -> None:
    y, x = np.mgrid[:40, :40].astype(np.float32)
    mask = np.zeros((40, 40), np.bool_)
    mask[12:28, 12:28] = True
    bump = 20 * np.exp(-((x - 20) ** 2 + (y - 20) ** 2) / 20)
    picture = np.repeat((60 + x)[..., None], 3, 2).round().astype(np.uint8)
    patch = np.repeat((180 + x + bump)[..., None], 3, 2)
    laid = lay(patch, picture, mask, mask, "poisson").astype(np.float32)
    assert np.abs(laid[..., 0] - (60 + x + bump))[mask].max() <= 1.5


def test_a_membrane_is_harmonic_and_its_coarse_form_close() -> None:
    y, x = np.mgrid[:360, :360] / 360.0
    difference = np.repeat((x**2 - y**2 + 3 * x)[..., None], 3, 2).astype(np.float32)
    region = np.hypot(x - 0.5, y - 0.5) < 0.49
    inside = difference.copy()
    inside[region] = 99
    assert np.abs(membrane(inside, region)[region] - difference[region]).max() < 0.05
    small = np.hypot(x - 0.5, y - 0.5) < 0.1
    inside = difference.copy()
    inside[small] = 99
    surface_over = membrane(inside, small)
    assert np.abs(surface_over[small] - difference[small]).max() < 1e-3
    assert not surface_over[~small].any()
