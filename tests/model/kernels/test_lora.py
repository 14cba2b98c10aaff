"""The written-out products of layers in training against peft's own, forwards and backwards."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, LoraModel
from torch import Tensor, nn

from model.kernels.lora import BranchProduct

BRANCHES, ROWS, RANK = ("global", "anomaly"), 3, 2

LAYERS: dict[str, tuple[nn.Linear | nn.Conv2d, tuple[int, ...]]] = {
    "linear": (nn.Linear(6, 5), (4, 6)),
    "large linear": (nn.Linear(600, 120), (2, 600)),
    "linear without bias": (nn.Linear(6, 5, bias=False), (6,)),
    "convolution": (nn.Conv2d(6, 5, 3, padding=1), (6, 9, 7)),
    "strided convolution": (nn.Conv2d(6, 5, 3, stride=2, padding=1, bias=False), (6, 10, 9)),
    "convolution of few cells": (nn.Conv2d(6, 5, 3, padding=1), (6, 4, 3)),
    "strided convolution of few cells": (nn.Conv2d(6, 5, 3, stride=2, padding=1, bias=False), (6, 7, 4)),
    "convolution of single cells": (nn.Conv2d(6, 5, 1), (6, 3, 2)),
}


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("learning_input", [True, False])
@pytest.mark.parametrize("half", [False, True], ids=["fp32", "bf16"])
def test_outputs_and_gradients_are_pefts(kind: str, *, learning_input: bool, half: bool) -> None:
    torch.manual_seed(0)
    base, shape = LAYERS[kind]
    base.requires_grad_(False)
    config = {name: LoraConfig(r=RANK, lora_alpha=RANK, target_modules=["0"]) for name in BRANCHES}
    peft = LoraModel(nn.Sequential(base), config, BRANCHES[0])
    peft.inject_adapter(peft.model, BRANCHES[1])
    layer = peft.model[0]
    x = torch.randn((len(BRANCHES) * ROWS, *shape), requires_grad=learning_input)
    pull = torch.randn(base(x).shape)
    outputs, gradients, downs, ups = [], [], [], []
    for name, rows, force in zip(BRANCHES, x.chunk(2), pull.chunk(2), strict=True):
        layer.set_adapter(name)
        down, up = layer.lora_A[name].weight, layer.lora_B[name].weight
        nn.init.normal_(up)
        downs.append(down)
        ups.append(up)
        outputs.append(layer(rows))
        gradients.append(torch.autograd.grad(outputs[-1], [down, up, *([rows] if learning_input else [])], force))
    down, up = (torch.stack(each).detach().requires_grad_() for each in (downs, ups))
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        found = BranchProduct(base)(x, down, up)
    assert found.dtype is (torch.bfloat16 if half else torch.float32)
    assert distance(found, torch.cat(outputs)) < (0.01 if half else 1e-6)
    moved = torch.autograd.grad(found, [down, up, *([x] if learning_input else [])], pull.to(found.dtype))
    by_down, by_up, *by_rows = zip(*gradients, strict=True)
    expected: list[Tensor] = [torch.stack(by_down), torch.stack(by_up), *map(torch.cat, by_rows)]
    for one, other in zip(moved, expected, strict=True):
        assert one.dtype is torch.float32
        assert distance(one, other) < (0.02 if half else 1e-5)


def distance(one: Tensor, other: Tensor) -> float:
    """Relative to the second."""
    return float((one - other).detach().norm() / other.detach().norm())


def test_a_layer_computes_in_the_precision_of_each_pass() -> None:
    torch.manual_seed(0)
    product = BranchProduct(nn.Conv2d(6, 5, 3, padding=1).requires_grad_(False))
    x, down, up = torch.randn(2, 6, 9, 9), torch.randn(2, 2, 6, 3, 3), torch.randn(2, 5, 2, 1, 1)
    first = product(x, down, up)
    with torch.autocast("cpu", torch.bfloat16):
        half = product(x, down, up)
    assert half.dtype is torch.bfloat16
    assert torch.equal(product(x, down, up), first)
