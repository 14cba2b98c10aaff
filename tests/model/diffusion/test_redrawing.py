"""What a model's scale and its autoencoder lose of real defects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model.data.detail import MASK_CELLS, PATCH
from model.diffusion.base import Base, load_base
from model.diffusion.redrawing import lost_detail
from model.types import Pair
from tests.support.tiny_data import drawn_pair


@pytest.fixture(scope="module")
def base(tiny_base: Path) -> Base:
    return load_base(str(tiny_base))


@pytest.mark.parametrize("scale", [0.5, 1.0])
def test_it_is_learned_at_the_scale_of_work_in_pieces_of_a_window(base: Base, scale: float) -> None:
    pair = drawn_pair(0, 96, 120)
    asked: list[int] = []

    def scale_of(mask: np.ndarray) -> float:
        asked.append(int(mask.sum()))
        return scale

    found = lost_detail(base.vae, [pair], scale_of, 32, base.factor, grey=False)
    assert found is not None
    assert asked == [int(pair.mask.sum())]
    (residuals,) = found.residuals
    assert residuals.shape[1:] == (PATCH, PATCH, 1)
    assert len(residuals) > pair.mask.sum() / 4
    again = lost_detail(base.vae, [pair], scale_of, 32, base.factor, grey=False)
    assert again is not None
    assert np.array_equal(again.residuals[0], residuals)


@pytest.mark.parametrize("grey", [False, True])
def test_grey_photographs_are_compared_without_colours(base: Base, *, grey: bool) -> None:
    drawn = drawn_pair(0)
    pair = Pair("grey", np.repeat(drawn.image[..., :1], 3, axis=2), drawn.mask)
    found = lost_detail(base.vae, [pair], lambda _: 1.0, 64, base.factor, grey=grey)
    assert found is not None
    colours = found.looks[0].data[:, :-MASK_CELLS].reshape(found.looks[0].n, -1, 3)
    assert (np.ptp(colours, axis=2).max() < 1e-3) == grey


def test_patches_are_kept_by_defect(base: Base) -> None:
    pairs = [drawn_pair(seed, 96, 120) for seed in range(3)]
    found = lost_detail(base.vae, pairs, lambda _: 1.0, 32, base.factor, grey=False)
    assert found is not None
    assert len(found.residuals) == len(found.looks) == 3


def test_there_is_none_without_a_defect(base: Base) -> None:
    pair = drawn_pair(0)
    empty = Pair("empty", pair.image, np.zeros_like(pair.mask))
    assert lost_detail(base.vae, [empty], lambda _: 1.0, 64, base.factor, grey=False) is None


def test_black_and_white_photographs_lose_only_what_compression_left(base: Base) -> None:
    drawn = drawn_pair(0, 64, 64)
    noise = np.random.default_rng(0).integers(0, 6, (64, 64, 1))
    image = np.where(drawn.mask[..., None], 255 - noise, noise).repeat(3, 2).astype(np.uint8)
    found = lost_detail(base.vae, [Pair("board", image, drawn.mask)], lambda _: 1.0, 64, base.factor, grey=True)
    assert found is not None
    assert found.levels is not None
    assert 0 < np.abs(found.residuals[0]).max() <= 6
