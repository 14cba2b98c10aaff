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
from model.dualanodiff.sampling.decode import DecodedPair
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
        anchor, copy = draw_copy(adapter, normal, [normal], 0, None, anywhere, anywhere, np.random.default_rng(seed))
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
        anchor, copy = draw_copy(open_adapter, normal, [normal], 0, levels, anywhere, anywhere, rng)
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
        anchor, _ = draw_copy(open_adapter, bare, [bare, board], 0, levels, anywhere, anywhere, rng)
        assert anchor.normal.name == "board"


RIM = 2 * SIDE // 3
"""Column at which a cookie begins; left of it lies its tray."""


def cookie() -> ImageArray:
    image = surface(0, SIDE, SIDE)
    image[:, :RIM] //= 3
    return image


@pytest.fixture
def break_adapter(tiny_base: Path) -> DualAnoDiffAdapter:
    """As trained on a cookie with a break that begins at its rim."""
    plain = tiny_adapter(load_base(str(tiny_base)), view="window", flip_horizontal=False)
    image, mask = cookie(), np.zeros((SIDE, SIDE), np.bool_)
    mask[60:90, RIM - 6 : RIM + 24] = True
    image[mask] //= 3
    references, placements = make_references([Pair("break", image, mask)], plain.model.config)
    return replace(plain, references=references, placements=placements)


GIVEN = SamplingConfig(anchored=True, mask_method="threshold", part_guidance=3.0, steps=2)


def test_wide_defects_whose_surroundings_are_uneven_are_given(break_adapter: DualAnoDiffAdapter) -> None:
    """They lie at the rim, and end with what is drawn."""
    normal = NormalImage("cookie", cookie())
    sampler = prepare_sampling(break_adapter, GIVEN, normals=[normal])
    assert sampler.given == frozenset({0})
    assert not prepare_sampling(break_adapter, replace(GIVEN, part_guidance=0.0), normals=[normal]).given
    for seed in range(6):
        rng = np.random.default_rng(seed)
        anchor, copy = draw_copy(break_adapter, normal, [normal], 0, None, anywhere, anywhere, rng)
        assert not copy.exact
        first = anchor.window.left + np.flatnonzero(copy.mask.any(0))[0] * anchor.window.side / copy.mask.shape[1]
        assert first <= RIM + 2
    pairs = [each for each in sampler.decoded(0, 2) if isinstance(each, DecodedPair)]
    assert [(pair.given, pair.exact, pair.contrast) for pair in pairs] == [(True, False, None)] * 2
    assert {pair.reach for pair in pairs} == {break_adapter.base.factor}


@pytest.mark.parametrize("on_object", [True, False])
@pytest.mark.parametrize("part_guidance", [0.0, 3.0])
def test_defects_lie_on_the_product_unless_the_user_says_otherwise(
    break_adapter: DualAnoDiffAdapter, monkeypatch: pytest.MonkeyPatch, part_guidance: float, *, on_object: bool
) -> None:
    product = np.zeros((SIDE, SIDE), np.bool_)
    product[:, RIM:] = True
    monkeypatch.setattr("model.masks.objects.Objects.in_normal", lambda *_: product)
    config = replace(GIVEN, part_guidance=part_guidance, on_object=on_object, batch=4)
    normal = NormalImage("cookie", cookie())
    sampler = prepare_sampling(break_adapter, config, normals=[normal], object_net=tiny_u2net())
    made = list(sample_pairs(sampler, 0, 4))
    assert any(candidate.mask.any() for candidate in made)
    beside = any((candidate.mask & ~product).any() for candidate in made)
    assert beside != on_object


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
