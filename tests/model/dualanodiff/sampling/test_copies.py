"""Where copies of real defects lie, whose parts the anomaly branch is given, and how large they are drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model.data.placement import NormalImage
from model.data.two_levels import TwoLevels
from model.diffusion.base import load_base
from model.dualanodiff.adapter import DualAnoDiffAdapter, make_references
from model.dualanodiff.sampling.copies import draw_copy
from model.dualanodiff.sampling.sampler import prepare_sampling, sample_pairs
from model.types import ImageArray, MaskArray, Pair
from service.core.options.dualanodiff import SamplingConfig
from tests.support.tiny_data import surface, tiny_adapter, tiny_u2net

SIDE = 160


@pytest.fixture
def adapter(tiny_base: Path) -> DualAnoDiffAdapter:
    """As trained on a photograph with a long scratch that its left border cuts off, and a short one."""
    plain = tiny_adapter(load_base(str(tiny_base)), view="window", flip_horizontal=False, flip_vertical=False)
    image, mask = surface(0, SIDE, SIDE).copy(), np.zeros((SIDE, SIDE), np.bool_)
    mask[70:72, :110] = True
    mask[120:122, 60:90] = True
    image[mask] //= 3
    references, placements = make_references([Pair("scratch", image, mask)], plain.model.config)
    return replace(plain, references=references, placements=placements)


def drawn(
    adapter: DualAnoDiffAdapter, seed: int, *, where: MaskArray | None = None, product: MaskArray | None = None
) -> MaskArray:
    """Return where the copy lies on a good part, `(H, W)` bool."""
    normal = NormalImage("good", surface(9, SIDE, 2 * SIDE))
    rng = np.random.default_rng(seed)
    anchor, copy = draw_copy(adapter, normal, [normal], 0, None, lambda _: where, lambda _: product, rng)
    window = anchor.window
    rows, columns = (np.arange(window.side) * copy.mask.shape[0] // window.side for _ in range(2))
    placed = np.zeros(normal.image.shape[:2], np.bool_)
    placed[window.slices] = copy.mask[np.ix_(rows, columns)]
    return placed


def anywhere(_: NormalImage) -> None:
    """Allow all of a good part."""


def half(*, left: bool = False, top: bool = False) -> MaskArray:
    part = np.ones((SIDE, 2 * SIDE), np.bool_)
    if left:
        part[:, SIDE:] = False
    if top:
        part[SIDE // 2 :] = False
    return part


def test_a_copy_lies_on_the_product_and_where_the_user_wants_it(adapter: DualAnoDiffAdapter) -> None:
    everywhere = np.ones((SIDE, 2 * SIDE), np.bool_)
    for seed in range(6):
        for where in (None, everywhere):
            assert half(left=True)[drawn(adapter, seed, where=where, product=half(left=True))].mean() > 0.9
        assert half(top=True)[drawn(adapter, seed, where=half(top=True))].mean() > 0.9
        both = half(left=True, top=True)
        assert both[drawn(adapter, seed, where=half(top=True), product=half(left=True))].mean() > 0.9
        # Where the two exclude each other, the user is right.
        assert (~half(left=True))[drawn(adapter, seed, where=~half(left=True), product=half(left=True))].mean() > 0.9


def test_what_a_border_cuts_off_begins_at_a_border_unless_the_user_says_where(adapter: DualAnoDiffAdapter) -> None:
    long = [mask for seed in range(12) if np.ptp(np.argwhere(mask := drawn(adapter, seed))[:, 1]) > 60]
    assert long
    assert all(mask[:, :3].any() for mask in long)
    assert not any(drawn(adapter, seed, where=~half(left=True))[:, :3].any() for seed in range(6))


def test_a_copy_is_whole_and_of_one_thickness_however_long_it_is(adapter: DualAnoDiffAdapter) -> None:
    """A short scratch beside a long one is drawn at the same scale."""
    normal = NormalImage("good", surface(9, SIDE, SIDE))
    scales = set()
    for seed in range(12):
        anchor, copy = draw_copy(adapter, normal, [normal], 0, None, anywhere, None, np.random.default_rng(seed))
        labelled = np.argwhere(copy.mask)
        assert np.ptp(labelled, axis=0).max() < copy.mask.shape[0]
        scales.add(round(copy.mask.shape[0] / anchor.window.side))
    assert max(scales) <= 3


def conductors() -> ImageArray:
    return np.repeat(np.where(np.mgrid[:SIDE, :SIDE][1] % 32 < 12, 0, 255).astype(np.uint8)[..., None], 3, 2)


@pytest.fixture
def open_adapter(tiny_base: Path) -> DualAnoDiffAdapter:
    """As trained on a board with a conductor that is cut."""
    plain = tiny_adapter(load_base(str(tiny_base)), view="window")
    image, mask = conductors(), np.zeros((SIDE, SIDE), np.bool_)
    mask[70:80, 64:76] = True
    image[mask] = 255
    references, placements = make_references([Pair("open", image, mask)], plain.model.config)
    return replace(plain, references=references, placements=placements)


def test_a_defect_of_a_circuit_has_a_window_of_its_own(open_adapter: DualAnoDiffAdapter) -> None:
    board = conductors()
    normal, levels = NormalImage("board", board), TwoLevels(0, 255)
    for seed in range(4):
        rng = np.random.default_rng(seed)
        anchor, copy = draw_copy(open_adapter, normal, [normal], 0, levels, anywhere, None, rng)
        assert copy.mask.any()
        assert copy.exact
        black = board[anchor.window.slices][..., 0] == 0
        rows = np.arange(copy.mask.shape[0]) * anchor.window.side // copy.mask.shape[0]
        assert black[np.ix_(rows, rows)][copy.mask].mean() > 0.6, "an open lies on a conductor"


def test_a_good_part_on_which_a_defect_has_no_place_is_left_for_another(open_adapter: DualAnoDiffAdapter) -> None:
    bare = NormalImage("bare", np.full((SIDE, SIDE, 3), 255, np.uint8))
    board, levels = NormalImage("board", conductors()), TwoLevels(0, 255)
    for seed in range(4):
        rng = np.random.default_rng(seed)
        anchor, _ = draw_copy(open_adapter, bare, [bare, board], 0, levels, anywhere, None, rng)
        assert anchor.normal.name == "board"


def test_wide_defects_are_given_where_they_must_fit_and_end_with_what_is_drawn(tiny_base: Path) -> None:
    plain = tiny_adapter(load_base(str(tiny_base)), view="window")
    image, mask = np.full((SIDE, SIDE, 3), 180, np.uint8), np.zeros((SIDE, SIDE), np.bool_)
    image[:, :70] = 60
    normal = NormalImage("cookie", image.copy())
    mask[60:90, 60:100] = True
    image[mask] = 60
    references, placements = make_references([Pair("break", image, mask)], plain.model.config)
    adapter = replace(plain, references=references, placements=placements)
    config = SamplingConfig(anchored=True, mask_method="threshold", part_guidance=3.0, steps=2)
    sampler = prepare_sampling(adapter, config, normals=[normal])
    assert sampler.given == frozenset({0})
    assert not prepare_sampling(adapter, replace(config, part_guidance=0.0), normals=[normal]).given
    _, copy = draw_copy(adapter, normal, [normal], 0, None, anywhere, None, np.random.default_rng(0))
    assert not copy.exact
    assert copy.mask[:, : copy.mask.shape[1] // 2].any(), "it begins at the rim"
    made = list(sample_pairs(sampler, 0, 2))
    assert [candidate.normal for candidate in made] == ["cookie", "cookie"]


def test_on_a_circuit_no_product_is_looked_for(
    open_adapter: DualAnoDiffAdapter, adapter: DualAnoDiffAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    normals, net = [NormalImage("board", conductors())], tiny_u2net()
    product = half(left=True)
    monkeypatch.setattr("model.masks.objects.Objects.in_normal", lambda *_: product)
    config = SamplingConfig(anchored=True, mask_method="threshold")

    def found(adapter: DualAnoDiffAdapter, config: SamplingConfig) -> MaskArray | None:
        return prepare_sampling(adapter, config, normals=normals, object_net=net).product(normals[0])

    assert found(adapter, config) is product
    assert found(open_adapter, config) is None
    assert found(adapter, replace(config, on_object=False)) is None
