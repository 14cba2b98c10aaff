"""The written-out products of layers in training against peft's own, forwards and backwards."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, LoraModel
from torch import Tensor, nn

from model.branch_products import BranchProduct

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
def test_outputs_and_gradients_are_pefts(kind: str, *, learning_input: bool) -> None:
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
    found = BranchProduct(base)(x, down, up)
    torch.testing.assert_close(found, torch.cat(outputs))
    moved = torch.autograd.grad(found, [down, up, *([x] if learning_input else [])], pull)
    by_down, by_up, *by_rows = zip(*gradients, strict=True)
    expected: list[Tensor] = [torch.stack(by_down), torch.stack(by_up), *map(torch.cat, by_rows)]
    for one, other in zip(moved, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
