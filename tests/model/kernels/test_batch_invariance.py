"""Rows of a batch that do not depend on the others, and what they are without that."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from model.kernels.batch_invariance import fixed_batches, pad_single
from model.runtime import switches
from model.runtime.switches import Switch

WAYS = {"whole networks": fixed_batches, "single layers": pad_single}


def rows() -> Tensor:
    draw = torch.randn((6, 8, 12, 12), generator=torch.Generator().manual_seed(0))
    return draw.to(memory_format=torch.channels_last)


@pytest.mark.parametrize("way", WAYS)
@torch.no_grad()
def test_a_row_is_the_same_alone_as_beside_others_and_close_to_the_plain_one(way: str) -> None:
    torch.manual_seed(1)
    convolution = nn.Conv2d(8, 16, 3, padding=1).to(memory_format=torch.channels_last)
    x = rows()
    together = WAYS[way](convolution, x)
    for count in range(1, 6):
        assert torch.equal(WAYS[way](convolution, x[:count]), together[:count])
    with switches.plain(Switch.FIXED_BATCHES):
        assert torch.equal(WAYS[way](convolution, x[:1]), convolution(x[:1]))
    torch.testing.assert_close(together, convolution(x), atol=1e-5, rtol=1e-5)
