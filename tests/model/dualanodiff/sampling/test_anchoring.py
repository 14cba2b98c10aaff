"""What anchored sampling starts from, and what it keeps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from model.data.crops import Window
from model.data.detail import RealDetail, Redrawn, learn_detail
from model.data.placement import REACH, Anchor, NormalImage, draw_anchor
from model.data.two_levels import TwoLevels
from model.diffusion.base import load_base
from model.dualanodiff.adapter import make_references
from model.dualanodiff.sampling.anchoring import (
    Anchoring,
    anchor_on,
    blend,
    canvas_of,
    grey_latent,
    margin_of,
    visible_defect,
    widened,
)
from model.dualanodiff.sampling.decode import DecodedPair, as_bright, within_bounds
from model.types import GREY, MaskArray, Pair
from tests.support.tiny_data import drawn_normal, tiny_adapter


def test_where_the_part_is_grey_there_is_no_defect() -> None:
    grey = torch.zeros(1, 4, 1, 1).expand(1, 4, 8, 8)
    part = grey.clone()
    part[:, :, 2, 3] = 5
    defect = visible_defect(part, grey)
    assert defect.shape == (1, 1, 8, 8)
    assert (int(defect.sum()), float(defect[0, 0, 2, 3])) == (1, 1.0)
    region = widened(defect)[0, 0]
    assert (region[1:4, 2:5] > 0.4).all()
    assert region[2, 3] == 1
    assert not region[6:].any()


def test_where_no_defect_may_be_the_part_stays_blank_and_the_image_the_normals() -> None:
    latents = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    blank, normal = torch.full_like(latents[0], 0.01), torch.ones_like(latents[0])
    allowed = torch.zeros(1, 1, 8, 8)
    allowed[..., :3] = 1
    anchoring = Anchoring(normal, torch.stack([normal, blank]), torch.zeros(1, 4, 1, 1), allowed)
    image, part = blend(latents, anchoring)
    assert torch.equal(part[..., 3:], blank[..., 3:])
    assert torch.allclose(part[..., :3], latents[1][..., :3], atol=1e-6)
    assert torch.equal(image[..., 5:], normal[..., 5:])
    assert not torch.equal(image[..., :3], normal[..., :3])


def test_sketched_starts_hold_no_defect_at_borders_inside_the_photograph(tiny_base: Path) -> None:
    """There the sketched part equals the plain one's grey surroundings, so nothing is pinned that should not be."""
    adapter = tiny_adapter(load_base(str(tiny_base)))
    normal = drawn_normal(0, 96, 96)
    rngs = [np.random.default_rng(seed) for seed in range(6)]
    anchors = [draw_anchor([normal], adapter.placements, rng, (True, True)) for rng in rngs]
    middle = [replace(anchor, window=replace(anchor.window, left=20, top=20)) for anchor in anchors]
    grey = grey_latent(adapter)
    found = anchor_on(adapter, middle, rngs, grey, sketched=True)
    assert found.start.shape == (2, 6, 4, 8, 8)
    edge = torch.ones(8, 8, dtype=torch.bool)
    edge[1:-1, 1:-1] = False
    assert not found.allowed[:, 0, edge].any()
    assert found.allowed.any()


def test_a_defect_without_a_course_keeps_off_borders_inside_the_photograph(tiny_base: Path) -> None:
    """Not off the photograph's own, where real defects are cut off as well."""
    adapter, normal = tiny_adapter(load_base(str(tiny_base))), drawn_normal(0, 96, 96)
    at_corner = Anchor(normal, Window(0, 0, 48))
    found = anchor_on(adapter, [at_corner], [np.random.default_rng(0)], grey_latent(adapter), sketched=False)
    free = 8 - margin_of(8)
    assert found.allowed[0, 0, :free, :free].all()
    assert not found.allowed[0, 0, free:].any()
    assert not found.allowed[0, 0, :, free:].any()


def test_the_margin_is_three_cells_and_leaves_most_of_a_small_window() -> None:
    assert [margin_of(cells) for cells in (4, 8, 16, 64)] == [1, 1, 3, 3]


def test_the_course_of_a_long_defect_lies_on_the_product(tiny_base: Path) -> None:
    adapter = tiny_adapter(load_base(str(tiny_base)), view="window")
    image, mask = np.full((120, 120, 3), 150, np.uint8), np.zeros((120, 120), np.bool_)
    mask[20:22, 30:90] = True
    image[mask] = 40
    references, placements = make_references([Pair("scratch", image, mask)], adapter.model.config)
    adapter = replace(adapter, references=references, placements=placements)
    normal = NormalImage("good", np.full((120, 120, 3), 150, np.uint8))
    product = np.zeros((120, 120), np.bool_)
    product[60:] = True

    def off_product(found: MaskArray | None) -> float:
        rngs = [np.random.default_rng(seed) for seed in range(8)]
        anchors = [
            draw_anchor([normal], adapter.placements, rng, (False, False), product=lambda _: found) for rng in rngs
        ]
        windows = [replace(anchor, window=Window(0, 0, 120)) for anchor in anchors]
        anchored = anchor_on(adapter, windows, rngs, grey_latent(adapter), sketched=False)
        assert all(allowed.any() for allowed in anchored.allowed)
        off = anchored.allowed[..., : anchored.allowed.shape[-2] // 2, :]
        return float(off.sum() / anchored.allowed.sum())

    assert off_product(None) > 0.3
    assert off_product(product) == 0


def test_the_grey_latent_is_that_of_the_surroundings_of_real_parts(tiny_base: Path) -> None:
    adapter = tiny_adapter(load_base(str(tiny_base)))
    grey = grey_latent(adapter)
    assert grey.shape == (1, 4, 1, 1)
    assert torch.equal(grey, grey_latent(adapter))


def lower_left(normal: NormalImage) -> np.ndarray:
    height, width = normal.image.shape[:2]
    where = np.zeros((height, width), np.bool_)
    where[height // 2 :, : width // 2] = True
    return where


def test_a_region_is_where_windows_lie_and_all_that_may_hold_a_defect(tiny_base: Path) -> None:
    """Also of sketches, which are tried again until they lie in it."""
    adapter, normal = tiny_adapter(load_base(str(tiny_base))), drawn_normal(0, 96, 96)
    rngs = [np.random.default_rng(seed) for seed in range(6)]
    anchors = [draw_anchor([normal], adapter.placements, rng, (True, True), lower_left) for rng in rngs]
    where = lower_left(normal)
    for anchor in anchors:
        assert where[anchor.window.slices].mean() > 0.3
        assert 0 <= anchor.window.left <= 96 - anchor.window.side
    found = anchor_on(adapter, anchors, rngs, grey_latent(adapter), sketched=True)
    for anchor, allowed in zip(anchors, found.allowed[:, 0], strict=True):
        bounds = anchor.bounds_at(32)
        assert bounds is not None
        cells = bounds.reshape(8, 4, 8, 4).any((1, 3))
        assert not allowed[~torch.from_numpy(cells)].any()
        assert allowed.any()


def test_larger_sizes_are_larger_windows_of_the_same_canvas(tiny_base: Path) -> None:
    adapter, normal = tiny_adapter(load_base(str(tiny_base))), drawn_normal(0, 200, 200)
    for size in (0.5, 2.0):
        rng, other = np.random.default_rng(0), np.random.default_rng(0)
        plain = draw_anchor([normal], adapter.placements, other, (True, True))
        anchor = draw_anchor([normal], adapter.placements, rng, (True, True), sizes=(size, size))
        assert anchor.window.side == round(size * plain.window.side)
        assert canvas_of(adapter, anchor) == canvas_of(adapter, plain)


def board() -> tuple[NormalImage, RealDetail | None]:
    """A good part of black stripes on white, and the detail of a black spot on one like it."""
    stripes = np.where(np.mgrid[:96, :96][1] % 16 < 6, 0, 255).astype(np.uint8)
    normal, there = NormalImage("board", np.repeat(stripes[..., None], 3, 2)), np.zeros((96, 96), np.bool_)
    there[40:60, 40:60] = True
    real = np.where(there[..., None], np.uint8(0), normal.image)
    return normal, learn_detail([Redrawn(real, real.astype(np.float32), there)], TwoLevels(0, 255))


def test_a_window_on_a_black_and_white_photograph_stays_so() -> None:
    normal, detail = board()
    mask = np.zeros((32, 32), np.bool_)
    mask[12:20, 10:22] = True
    drawn, bright = (np.full((32, 32, 3), level, np.uint8) for level in (60, 230))
    anchor = Anchor(normal, Window(16, 32, 48))
    made = DecodedPair(0, 0, drawn, drawn, mask, None, anchor, bright, detail).to_candidate()
    assert set(np.unique(made.image)) == {0, 255}
    assert (made.image[made.mask] == 0).all()
    assert made.part is not None
    assert np.array_equal(made.part[made.mask], made.image[made.mask])
    differs = (made.image != normal.image).any(-1)
    assert not differs[ndimage.distance_transform_edt(~made.mask) > REACH * 48 / 32].any()


def test_a_given_part_on_black_and_white_ends_where_it_was_drawn() -> None:
    """Beside it the image is the good part, and the part is grey."""
    normal, detail = board()
    white = NormalImage("board", np.full_like(normal.image, 255))
    mask, filled = np.zeros((32, 32), np.bool_), np.full((32, 32, 3), 230, np.uint8)
    mask[12:20, 10:22] = True
    drawn = filled.copy()
    drawn[13:19, 11:21] = 20
    part = np.full((32, 32, 3), GREY, np.uint8)
    part[mask] = 20
    anchor = Anchor(white, Window(16, 32, 32))
    made = DecodedPair(0, 0, drawn, part, mask, None, anchor, filled, detail, given=True).to_candidate()
    dark = made.image[..., 0] == 0
    assert np.array_equal(made.mask, dark)
    assert dark.sum() == 60
    assert made.part is not None
    assert (made.part[~dark] == GREY).all()
    assert (made.part[dark] == 0).all()


def matched_pair(bounds: np.ndarray | None = None, drawn_to: int = 21) -> DecodedPair:
    """A pair whose image shows the defect from column 10 on, its part up to 18; that is a little off grey around it."""
    anchor = Anchor(drawn_normal(0, 64, 64), Window(16, 16, 32), bounds=bounds, wanted=bounds)
    found, filled = np.zeros((32, 32), np.bool_), np.full((32, 32, 3), 160, np.uint8)
    found[12:20, 10:18] = True
    drawn, part = filled.copy(), np.full_like(filled, GREY + 2)
    drawn[12:20, 10:drawn_to] = 60
    part[found] = 60
    return DecodedPair(0, 0, drawn, part, found, None, anchor, filled, reach=4)


@pytest.mark.parametrize("drawn_to", [15, 21])
def test_a_matched_mask_is_the_change_and_the_part_is_grey_where_the_mask_moved(drawn_to: int) -> None:
    """So that it is not compared with the image there."""
    decoded = matched_pair(drawn_to=drawn_to)
    made, plain = decoded.to_candidate(), replace(decoded, reach=0).to_candidate()
    assert np.array_equal(made.mask[16:48, 16:48], (decoded.image == 60).all(-1))
    assert np.array_equal(plain.mask[16:48, 16:48], decoded.mask)
    assert made.part is not None
    assert plain.part is not None
    moved = made.mask ^ plain.mask
    assert moved.any()
    assert (made.part[moved] == GREY).all()
    assert not (plain.part[moved] == GREY).any()
    assert np.array_equal(made.part[~moved], plain.part[~moved])


def test_a_wide_given_part_ends_where_the_image_does_which_becomes_as_bright() -> None:
    decoded = replace(matched_pair(drawn_to=15), given=True, exact=False)
    made, exact = decoded.to_candidate(), replace(decoded, exact=True, reach=0).to_candidate()
    assert np.array_equal(made.mask[16:48, 16:48], (decoded.image == 60).all(-1))
    assert np.array_equal(exact.mask[16:48, 16:48], decoded.mask)
    part = decoded.part.copy()
    part[decoded.mask] = 90
    brighter = replace(decoded, part=part).to_candidate()
    inside = made.mask & np.roll(made.mask, 2, 1) & np.roll(made.mask, -2, 1)
    raised = brighter.image[inside].astype(int) - made.image[inside]
    assert abs(raised.mean() - 30) < 3
    assert np.array_equal(brighter.image[~made.mask & ~near(made.mask)], made.image[~made.mask & ~near(made.mask)])


def near(mask: MaskArray) -> MaskArray:
    return np.asarray(ndimage.binary_dilation(mask, iterations=2 * REACH))


def test_brightness_is_compared_where_both_show_the_defect() -> None:
    drawn, part = (np.full((16, 16, 3), level, np.uint8) for level in (100, 70))
    mask, shown = np.ones((16, 16), np.bool_), np.zeros((16, 16), np.bool_)
    part[12:] = GREY
    assert (as_bright(drawn, part, mask, shown) == 100).all()
    shown[4:12, 4:12] = True
    assert (as_bright(drawn, part, mask, shown) == 70).all()
    mask[:, :8] = False
    assert (as_bright(drawn, part, mask, shown)[:, :4] == 100).all()


def test_a_matched_mask_stays_in_the_region_and_off_borders_inside_the_photograph() -> None:
    """What of the change lies beyond is no share of the defect outside the region, either."""
    where = np.zeros((64, 64), np.bool_)
    where[:, :34] = True
    made = matched_pair(where).to_candidate()
    assert not made.mask[~where].any()
    assert made.scores["outside_region"] == 0
    decoded = matched_pair()
    image, mask, part = (np.roll(each, 11, 1) for each in (decoded.image, decoded.mask, decoded.part))
    at_border = replace(decoded, image=image, mask=mask, part=part).to_candidate()
    assert at_border.mask[:, 16 + 28 - 1].any()
    assert not at_border.mask[:, 16 + 29 :].any()


def test_what_of_a_mask_leaves_the_region_is_cut_off_and_told() -> None:
    normal = drawn_normal(0, 64, 64)
    where = lower_left(normal)
    anchor = Anchor(normal, Window(0, 16, 32), bounds=where, wanted=where)
    mask = np.zeros((32, 32), np.bool_)
    mask[8:24, :8] = True
    kept, scores = within_bounds(mask, anchor)
    assert scores == {"outside_region": 0.5}
    assert kept.sum() == mask.sum() / 2
    assert not kept[:16].any()
    assert within_bounds(mask, replace(anchor, bounds=None, wanted=None)) == (mask, {})
    # What leaves the product alone is cut off without a word.
    cut, unsaid = within_bounds(mask, replace(anchor, wanted=None))
    assert np.array_equal(cut, kept)
    assert not unsaid
    drawn = normal.image[:32, :32]
    made = DecodedPair(0, 0, drawn, drawn, mask, None, anchor, drawn).to_candidate()
    assert not made.mask[~where].any()
    assert made.scores["outside_region"] > 0.4
