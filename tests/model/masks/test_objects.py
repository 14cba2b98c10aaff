"""What a product is: the part as it was, before a piece of it broke off."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from model.diffusion.base import SHIPPED
from model.masks.objects import by_backdrop, find_objects, find_products, off_object_share, shows_object, whole_object
from model.masks.u2net import U2Net, load_u2net
from model.types import MaskArray, Pair
from tests.support.tiny_data import surface, tiny_u2net

SIDE = 96


@pytest.fixture(scope="module")
def finder() -> U2Net:
    return load_u2net(SHIPPED / "mini" / "u2net" / "object.safetensors").eval()


def disc(radius: float = SIDE / 3) -> MaskArray:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return np.hypot(rows - SIDE / 2, columns - SIDE / 2) < radius


def on_tray(product: MaskArray, defect: MaskArray) -> Pair:
    """A photograph of a product on a dark tray."""
    return Pair("pair", np.where(product[..., None], surface(0, SIDE, SIDE), np.uint8(12)), defect)


def test_a_gap_belongs_to_the_whole() -> None:
    gap = disc() & (abs(np.mgrid[:SIDE, :SIDE][0] - SIDE / 2) < 6)
    whole = whole_object(disc() & ~gap)
    assert not (gap & ~whole).any()
    assert abs(int(whole.sum()) - int(disc().sum())) < 0.03 * disc().sum()


@pytest.mark.parametrize(
    "box", [np.s_[3:4, 5:6], np.s_[3:4, 5:60], np.s_[10:70, 7:8], np.s_[:, :], np.s_[20:40, 30:80]]
)
def test_what_has_no_dent_is_its_own_hull(box: tuple[slice, slice]) -> None:
    found = np.zeros((SIDE, SIDE), np.bool_)
    found[box] = True
    assert np.array_equal(whole_object(found), found)


def test_a_gap_lies_on_the_product_though_the_tray_shows(finder: U2Net) -> None:
    gap = disc() & (abs(np.mgrid[:SIDE, :SIDE][0] - SIDE / 2) < 7)
    pair = on_tray(disc() & ~gap, gap)
    found = find_objects(finder, [pair.image])[0]
    assert shows_object(found)
    # The network finds the pieces, so the gap would count as lying beside them.
    assert (gap & ~found).sum() > 0.2 * gap.sum()
    assert off_object_share(finder, [pair]) < 0.05


def test_a_defect_beside_the_product_lies_off_it(finder: U2Net) -> None:
    beside = np.zeros((SIDE, SIDE), np.bool_)
    beside[2:10, 2:10] = True
    inside = on_tray(disc(), np.roll(beside, SIDE // 2 - 6, (0, 1)))
    assert off_object_share(finder, [inside]) == 0.0
    assert off_object_share(finder, [inside, on_tray(disc(), beside)]) == 1.0
    assert off_object_share(finder, [Pair("surface", surface(0, SIDE, SIDE), beside)]) == 0.0


def blind() -> U2Net:
    """A network that takes everything for the product."""
    net = tiny_u2net().eval()
    with torch.no_grad():
        net.outconv.bias += 100
    return net


def test_a_product_that_the_network_does_not_see_is_found_by_its_backdrop() -> None:
    gap = disc() & (abs(np.mgrid[:SIDE, :SIDE][0] - SIDE / 2) < 7)
    pieces = disc() & ~gap
    (found,) = find_products(blind(), [on_tray(pieces, gap)])
    assert found is not None
    assert (found == pieces)[~gap].mean() > 0.97


def test_what_stands_out_of_a_surface_is_not_the_product() -> None:
    even = np.full((SIDE, SIDE, 3), 150, np.uint8)
    spotted = Pair("spot", np.where(disc(10)[..., None], np.uint8(20), even), disc(11))
    assert by_backdrop(spotted.image) is not None
    assert find_products(blind(), [spotted]) == [None]


def test_a_backdrop_counts_only_where_half_of_the_photographs_show_it() -> None:
    shown = on_tray(disc(), disc(5))
    plain = Pair("plain", surface(1, SIDE, SIDE), disc(5))
    assert [found is None for found in find_products(blind(), [shown, plain])] == [False, True]
    assert find_products(blind(), [shown, plain, plain]) == [None, None, None]
