"""Canvases are covered by windows, and joined from them without a seam."""

from __future__ import annotations

import pytest
import torch

from model.diffusion.tiling import Tiling, tile, window_weight


def test_what_is_cut_and_joined_unchanged_is_what_it_was() -> None:
    latents = torch.randn(2, 2, 4, 40, 40, generator=torch.Generator().manual_seed(0))
    wanted = torch.ones(2, 40, 40, dtype=torch.bool)
    wanted[1, 24:] = wanted[1, :, 24:] = False
    tiling = tile(wanted, [40, 24], 16)
    assert tiling is not None
    joined = tiling.join(tiling.cut(latents))
    assert torch.allclose(joined[:, 0], latents[:, 0], atol=1e-5)
    assert torch.allclose(joined[:, 1, :, :24, :24], latents[:, 1, :, :24, :24], atol=1e-5)
    assert not joined[:, 1, :, 24:].any()
    assert not tiling.covered[1, :, 24:].any()


def test_windows_of_a_canvas_that_is_no_square_are_put_together_again() -> None:
    picture = torch.rand(1, 3, 8, 20, generator=torch.Generator().manual_seed(0))
    tiling = Tiling(((0, 0, 0), (0, 0, 6), (0, 0, 12)), 8, (8, 20), 1)
    assert torch.allclose(tiling.join(tiling.cut(picture)), picture, atol=1e-6)


def test_overlaps_are_averaged_and_the_middle_of_a_window_counts_most() -> None:
    tiling = Tiling(((0, 0, 0), (0, 0, 8)), 16, (24, 24), 1)
    windows = torch.stack([torch.zeros(1, 16, 16), torch.ones(1, 16, 16)])
    row = tiling.join(windows)[0, 0, 8]
    assert not row[:8].any()
    assert (row[16:] == 1).all()
    shared = row[8:16]
    assert ((shared > 0) & (shared < 1)).all()
    assert (shared.diff() > 0).all()


def test_only_windows_with_something_to_fill_are_computed() -> None:
    wanted = torch.zeros(1, 64, 64, dtype=torch.bool)
    wanted[0, 30:34] = True
    tiling = tile(wanted, [64], 16)
    assert tiling is not None
    assert tiling.covered[0, 0][wanted[0]].all()
    tops = {top for _, top, _ in tiling.places}
    assert len(tops) < 3
    assert len(tiling.places) <= 2 * 7


@pytest.mark.parametrize("canvas", [16, 24, 32, 56, 96])
def test_every_cell_to_be_filled_lies_in_some_window(canvas: int) -> None:
    generator = torch.Generator().manual_seed(canvas)
    for _ in range(10):
        wanted = torch.rand(1, canvas, canvas, generator=generator) > 0.97
        tiling = tile(wanted, [canvas], 16)
        if canvas == 16:
            assert tiling is None
        else:
            assert tiling is not None
            assert tiling.covered[0, 0][wanted[0]].all()


def test_the_same_windows_on_a_finer_grid_lie_in_the_same_place() -> None:
    tiling = Tiling(((0, 8, 16),), 16, (32, 32), 1)
    fine = tiling.scaled(4)
    assert (fine.places, fine.side, fine.shape) == (((0, 32, 64),), 64, (128, 128))
    assert torch.equal(fine.covered[..., ::4, ::4], tiling.covered)


def test_weights_fall_towards_the_edge_and_never_vanish() -> None:
    weight = window_weight(16)
    assert weight.min() > 0
    assert weight[8, 8] > 0.9
    assert (weight[8, :8].diff() > 0).all()
