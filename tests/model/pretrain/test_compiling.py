"""A compiled objective is used where it is there in time and faster, and is the same function."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from model.pretrain.compiling import faster

WEIGHT = nn.Parameter(torch.ones(3))


def objective(rows: Tensor, doubled: bool) -> Tensor:  # noqa: FBT001
    return (rows * WEIGHT * (2 if doubled else 1)).square().sum()


EXAMPLE: tuple[Any, ...] = (torch.ones(2, 3), True)


def slow(graph: nn.Module, _inputs: list[Tensor]) -> Callable[..., Any]:
    time.sleep(5)
    return graph.forward


def failing(_graph: nn.Module, _inputs: list[Tensor]) -> Callable[..., Any]:
    raise RuntimeError("no compiler here")


def test_what_takes_too_long_or_fails_leaves_the_objective_as_it_is() -> None:
    torch.compiler.reset()
    began = time.monotonic()
    chosen, told = faster(objective, EXAMPLE, 0.2, slow)
    assert chosen is objective
    assert "not compiled" in told
    assert time.monotonic() - began < 5
    torch.compiler.reset()
    chosen, told = faster(objective, EXAMPLE, 60, failing)
    assert chosen is objective
    assert "not compiled" in told


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_what_is_compiled_is_the_same_function_whichever_is_chosen(backend: str) -> None:
    torch.compiler.reset()
    chosen, told = faster(objective, EXAMPLE, 60, backend)
    assert "times as fast" in told
    assert ("not used" in told) == (chosen is objective)
    losses = []
    for compute in (objective, chosen):
        WEIGHT.grad = None
        loss = compute(*EXAMPLE)
        loss.backward()
        losses.append((loss.item(), WEIGHT.grad))
    assert losses[0][0] == losses[1][0]
    assert torch.equal(losses[0][1], losses[1][1])


def test_nothing_is_compiled_without_time_or_outside_the_main_thread() -> None:
    assert faster(objective, EXAMPLE, 0, failing) == (objective, "")
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(faster(objective, EXAMPLE, 60, failing)))
    thread.start()
    thread.join()
    assert found == [(objective, "")]
