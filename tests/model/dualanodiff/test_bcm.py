from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from model.dualanodiff.bcm import BackgroundCompensation, background_images
from model.masks.extraction import u2net_mask
from model.types import GREY
from tests.support.tiny_data import drawn_pair, tiny_u2net


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


def test_the_object_turns_grey_and_the_rest_stays() -> None:
    net, image = tiny_u2net(), drawn_pair(0).image
    # Its random weights find nothing or everything: the median of its answers becomes its threshold.
    net.outconv.bias.data -= net(torch.zeros(1, 3, *image.shape[:2]))[0].median()
    found = u2net_mask(net, image)
    behind = background_images([image], net)[0]
    assert 0 < found.mean() < 1
    assert (behind[found] == GREY).all()
    assert np.array_equal(behind[~found], image[~found])
