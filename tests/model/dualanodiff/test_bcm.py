from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from model.diffusion.base import SHIPPED
from model.dualanodiff.bcm import BackgroundCompensation, background_image, check_backgrounds, product_masks
from model.dualanodiff.latent_dataset import cut_crops
from model.masks.u2net import U2Net, load_u2net
from model.types import GREY, Pair
from service.core.errors import UsageError
from tests.support.tiny_data import drawn_pair, surface, tiny_config


@pytest.fixture
def bcm() -> BackgroundCompensation:
    torch.manual_seed(0)
    return BackgroundCompensation(6, hidden=10)


def tokens(rows: int, seed: int) -> Tensor:
    return torch.randn((rows, 5, 6), generator=torch.Generator().manual_seed(seed))


def test_gamma_times_the_transformed_background_is_added(bcm: BackgroundCompensation) -> None:
    hidden, behind = tokens(3, 0), tokens(3, 1)
    torch.testing.assert_close(bcm(hidden, behind), hidden + 0.1 * bcm.mlp(behind))


def test_without_gamma_the_background_does_not_count(bcm: BackgroundCompensation) -> None:
    bcm.gamma.data.zero_()
    assert torch.equal(bcm(tokens(3, 0), tokens(3, 1)), tokens(3, 0))


def test_one_background_serves_all_rows_alike(bcm: BackgroundCompensation) -> None:
    shared = tokens(1, 1)
    torch.testing.assert_close(bcm(tokens(3, 0), shared), bcm(tokens(3, 0), shared.expand(3, -1, -1)))


def test_gamma_and_the_transformation_learn(bcm: BackgroundCompensation) -> None:
    bcm(tokens(3, 0), tokens(3, 1)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in bcm.parameters())


def test_product_and_defect_turn_grey_and_the_rest_stays() -> None:
    pair = drawn_pair(0)
    product = np.zeros_like(pair.mask)
    product[:, :20] = True
    assert (pair.mask & ~product).any()
    hidden = product | pair.mask
    behind = background_image(pair.image, product, pair.mask)
    assert (behind[hidden] == GREY).all()
    assert np.array_equal(behind[~hidden], pair.image[~hidden])
    assert np.array_equal(background_image(pair.image, product)[~product], pair.image[~product])


def on_tray(number: int, *, side: int = 96) -> Pair:
    """A broken disc of brass on a dark tray: the defect is the gap, where the tray shows."""
    rows, columns = np.mgrid[:side, :side]
    disc = np.hypot(rows - side / 2, columns - side / 2 + 4 * number) < side / 4
    gap = disc & (abs(rows - side / 2) < side / 12)
    image = np.where((disc & ~gap)[..., None], surface(number, side, side), np.uint8(12))
    return Pair(f"disc{number}", image, gap)


@pytest.fixture(scope="module")
def finder() -> U2Net:
    return load_u2net(SHIPPED / "mini" / "u2net" / "object.safetensors").eval()


@pytest.mark.parametrize("view", ["whole", "window"])
def test_no_background_shows_any_of_the_defect(finder: U2Net, view: str) -> None:
    pairs = [on_tray(0), on_tray(1)]
    products = product_masks(pairs, finder)
    # Otherwise leaving out the product alone would do.
    assert all((pair.mask & ~product).mean() > 0.01 for pair, product in zip(pairs, products, strict=True))
    crops = cut_crops(pairs, tiny_config(view=view, views=6), products)
    assert crops.backgrounds is not None
    for behind, image, mask in zip(crops.backgrounds, crops.images, crops.masks, strict=True):
        assert (behind[mask] == GREY).all()
        shown = (behind != GREY).any(2)
        assert 0.1 < shown.mean() < 0.95
        assert np.array_equal(behind[shown], image[shown])


def test_photographs_without_a_product_before_a_background_are_named(finder: U2Net) -> None:
    config = tiny_config(view="whole", bcm=True)
    assert check_backgrounds([on_tray(0), on_tray(1)], finder, config) == []
    (note,) = check_backgrounds([on_tray(0), drawn_pair(0, 96, 96)], finder, config)
    assert "bcm learns no background from blot0: check" in note
    with pytest.raises(UsageError, match=r"in no photograph a product .*: blot0, blot1; check .* turn bcm off"):
        check_backgrounds([drawn_pair(0, 96, 96), drawn_pair(1, 96, 96)], finder, config)


def test_a_photograph_without_a_product_has_a_grey_background(finder: U2Net) -> None:
    blind = drawn_pair(0, 96, 96)
    crops = cut_crops([blind], tiny_config(), product_masks([blind], finder))
    assert crops.backgrounds is not None
    assert all((behind == GREY).all() for behind in crops.backgrounds)


def test_crops_that_show_nothing_but_the_product_are_refused(finder: U2Net) -> None:
    pair = on_tray(0, side=400)
    small = np.zeros_like(pair.mask)
    small[120:126, 198:204] = True
    inside = Pair("inside", pair.image, small)
    assert check_backgrounds([inside], finder, tiny_config(view="whole")) == []
    with pytest.raises(UsageError, match="window crops of these photographs show nothing but the product"):
        check_backgrounds([inside], finder, tiny_config(view="window"))
