from __future__ import annotations

import pytest
import torch
from torch import Tensor

from model.dualanodiff.saim import SAIM
from model.dualanodiff.sampling.merged_unet import FoldedSAIM

CHANNELS = 6

NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="autocast on a GPU needs one")


@pytest.fixture
def saim() -> SAIM:
    torch.manual_seed(0)
    return SAIM(CHANNELS, zero_init=False)


@pytest.fixture
def hidden() -> Tensor:
    """Two branches, three pairs, five tokens."""
    return torch.randn((2, 3, 5, CHANNELS), generator=torch.Generator().manual_seed(1))


def test_with_zero_start_nothing_is_added(hidden: Tensor) -> None:
    assert not SAIM(CHANNELS)(hidden).any()


def test_the_released_codes_start_adds_something(saim: SAIM, hidden: Tensor) -> None:
    assert saim(hidden).abs().mean() > 0.01


@pytest.mark.parametrize("pairs", [1, 3], ids=["written out", "folded"])
def test_it_is_softmax_attention_over_the_two_branches_of_each_token(saim: SAIM, hidden: Tensor, pairs: int) -> None:
    hidden = hidden[:, :pairs]
    x = saim.proj_in(saim.norm(hidden.permute(1, 2, 0, 3)))
    scores = torch.einsum("bnic,bnjc->bnij", saim.to_q(x), saim.to_k(x)) / CHANNELS**0.5
    mixed = torch.einsum("bnij,bnjc->bnic", scores.softmax(-1), saim.to_v(x))
    torch.testing.assert_close(saim(hidden), saim.to_out(mixed).permute(2, 0, 1, 3))


def test_swapping_the_branches_swaps_what_is_added(saim: SAIM, hidden: Tensor) -> None:
    torch.testing.assert_close(saim(hidden.flip(0)), saim(hidden).flip(0))


def test_a_token_hears_only_the_same_token_of_the_other_branch(saim: SAIM, hidden: Tensor) -> None:
    changed = hidden.clone()
    changed[1, 2, 3] += 1.5 * torch.arange(CHANNELS)
    moved = (saim(changed) != saim(hidden)).any(-1)
    assert moved[:, 2, 3].all()
    assert moved.sum() == 2


@pytest.mark.parametrize("pairs", [1, 3], ids=["against written out", "against folded in passing"])
def test_folded_it_is_the_same_function(saim: SAIM, hidden: Tensor, pairs: int) -> None:
    hidden = hidden[:, :pairs]
    with torch.no_grad():
        for layer in (saim.norm, saim.proj_in, saim.to_q, saim.to_k, saim.to_v, saim.to_out):
            layer.bias.normal_()
    torch.testing.assert_close(FoldedSAIM(saim)(hidden), saim(hidden), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NEEDS_CUDA)])
@pytest.mark.parametrize("pairs", [1, 3], ids=["written out", "folded"])
def test_under_autocast_what_is_added_is_in_the_precision_of_what_it_is_added_to(
    saim: SAIM, hidden: Tensor, pairs: int, device: str
) -> None:
    exact = saim(hidden[:, :pairs])
    with torch.autocast(device, torch.bfloat16):
        added = saim.to(device)(hidden[:, :pairs].to(device, torch.bfloat16))
    assert added.dtype is torch.bfloat16
    torch.testing.assert_close(added.float().cpu(), exact, atol=0.03, rtol=0.03)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_gradients_of_the_folded_form_are_those_of_the_written_out(
    saim: SAIM, hidden: Tensor, kind: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    pull = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(2))
    learning = [parameter for parameter in saim.parameters() if parameter.requires_grad]
    gradients = []
    for above, precision in ((0, kind), (1e9, torch.float32)):
        monkeypatch.setattr("model.kernels.saim.FOLDED_ABOVE", above)
        x = hidden.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision is torch.bfloat16):
            added = saim(x)
        gradients.append(torch.autograd.grad(added, [x, *learning], pull.to(added.dtype)))
    for folded, written in zip(*gradients, strict=True):
        assert (folded - written).norm() <= (0.05 if kind is torch.bfloat16 else 1e-5) * written.norm()
