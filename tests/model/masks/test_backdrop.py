"""A product before a plain backdrop is found by its colours, and a surface is none."""

from __future__ import annotations

import numpy as np
import pytest

from model.masks.backdrop import otsu, stands_out
from model.masks.objects import by_backdrop, shows_object
from tests.support.tiny_data import surface

SIDE = 128
ROWS, COLUMNS = np.mgrid[:SIDE, :SIDE]


def on_tray(product: np.ndarray, seed: int = 0, *, strip: bool = False) -> np.ndarray:
    """A product on a dark and grainy tray, whose edge may show as a lighter strip."""
    noise = np.random.default_rng(seed).normal(40, 6, (SIDE, SIDE, 3))
    noise[:6] += 60 * strip
    return np.where(product[..., None], surface(seed, SIDE, SIDE), noise.clip(0, 255).astype(np.uint8))


def disc(row: float = 64, column: float = 64, radius: float = 35) -> np.ndarray:
    found: np.ndarray = np.hypot(ROWS - row, COLUMNS - column) < radius
    return found


@pytest.mark.parametrize("strip", [False, True])
@pytest.mark.parametrize("product", [disc(), disc(50, 70, 25), disc() & (abs(COLUMNS - 64) < 20)])
def test_a_product_on_a_tray_is_found(product: np.ndarray, *, strip: bool) -> None:
    found = stands_out(on_tray(product, strip=strip))
    assert found is not None
    assert (found & product).sum() > 0.9 * (found | product).sum()
    large = by_backdrop(np.repeat(np.repeat(on_tray(product, strip=strip), 3, axis=0), 3, axis=1))
    assert large is not None
    assert (large[1::3, 1::3] == found).mean() > 0.97


def test_dark_spots_of_a_product_belong_to_it() -> None:
    image = on_tray(disc())
    image[disc(60, 60, 6)] = 40
    found = stands_out(image)
    assert found is not None
    assert found[60, 60]


@pytest.mark.parametrize(
    "image",
    [
        surface(0, SIDE, SIDE),
        np.full((SIDE, SIDE, 3), 90, np.uint8),
        on_tray(COLUMNS > 64),  # reaches beyond the photograph
        np.repeat(np.where((COLUMNS // 8) % 2, 255, 0)[..., None], 3, axis=2).astype(np.uint8),
    ],
)
def test_nothing_stands_out_of_a_surface(image: np.ndarray) -> None:
    assert stands_out(image) is None
    assert by_backdrop(image) is None


def test_an_object_lies_before_a_background_or_is_whole_where_it_leaves_the_picture() -> None:
    assert shows_object(disc())
    assert shows_object((ROWS > 50) & (abs(COLUMNS - 64) < 50))  # leaves it at the bottom
    assert not shows_object((COLUMNS // 8) % 2 == 0)  # a pattern
    assert not shows_object(ROWS > 20)  # nearly everything
    assert not shows_object(np.zeros((SIDE, SIDE), np.bool_))


def test_two_groups_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    two = np.concatenate([rng.normal(1, 0.1, 700), rng.normal(3, 0.1, 300)])
    threshold, share = otsu(two)
    assert 1.3 < threshold < 2.7
    assert share > 0.95
    assert otsu(rng.normal(0, 1, 20_000))[1] < 0.68
    assert otsu(np.ones(9)) == (1.0, 0.0)
