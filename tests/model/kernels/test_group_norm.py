from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from model.kernels.group_norm import ChannelsLastGroupNorm, use_channels_last


def pair_of_norms() -> tuple[nn.GroupNorm, ChannelsLastGroupNorm]:
    """PyTorch's and ours with the same weights, in double precision."""
    torch.manual_seed(0)
    theirs, ours = nn.GroupNorm(4, 12).double(), ChannelsLastGroupNorm(4, 12).double()
    nn.init.normal_(theirs.weight)
    nn.init.normal_(theirs.bias)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def pixels(seed: int, offset: float = 0.0) -> Tensor:
    draw = torch.randn((3, 12, 9, 8), generator=torch.Generator().manual_seed(seed), dtype=torch.double) + offset
    return draw.to(memory_format=torch.channels_last).requires_grad_()


@pytest.mark.parametrize("offset", [0.0, 3.0])
def test_output_and_gradients_are_those_of_group_norm(offset: float) -> None:
    results = []
    for norm in pair_of_norms():
        x = pixels(0, offset)
        output = norm(x)
        (output * pixels(1).detach()).sum().backward()
        results.append((output, x.grad, norm.weight.grad, norm.bias.grad))
    for theirs, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_the_layout_stays_channels_last() -> None:
    _, norm = pair_of_norms()
    x = pixels(0)
    output = norm(x)
    output.sum().backward()
    assert output.is_contiguous(memory_format=torch.channels_last)
    assert x.grad is not None
    assert x.grad.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_in_half_precision_only_what_comes_in_and_goes_out_is_rounded(offset: float) -> None:
    theirs, ours = pair_of_norms()
    x = pixels(0, offset).detach().to(torch.bfloat16)
    output = ours.float()(x)
    assert output.dtype is torch.bfloat16
    torch.testing.assert_close(output.double(), theirs(x.double()), atol=1e-3, rtol=2**-8)


def test_sequences_go_through_pytorchs_own() -> None:
    theirs, ours = pair_of_norms()
    x = pixels(0).detach().flatten(2)
    assert torch.equal(ours(x), theirs(x))


def test_a_network_keeps_its_weights_and_what_it_computes() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.Conv2d(8, 4, 1))
    x = torch.randn((2, 3, 9, 9))
    before, state = net(x), {name: value.clone() for name, value in net.state_dict().items()}
    use_channels_last(net)
    torch.testing.assert_close(net(x), before, atol=1e-5, rtol=1e-5)
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert net[0].weight.is_contiguous(memory_format=torch.channels_last)
