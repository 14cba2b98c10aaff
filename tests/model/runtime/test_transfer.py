"""Copies that wait for neither side hold what plain copies hold."""

from __future__ import annotations

import pytest
import torch

from model.runtime import switches
from model.runtime.switches import Switch
from model.runtime.transfer import LateNumber, on_device

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="late copies need CUDA")),
]


@pytest.mark.parametrize("name", DEVICES)
def test_late_copies_are_plain_copies(name: str) -> None:
    device, drawn = torch.device(name), torch.arange(5.0)
    copied, late = on_device(drawn, device), LateNumber(drawn.to(device).sum())
    with switches.plain(Switch.LATE_COPIES):
        plain, number = on_device(drawn, device), LateNumber(drawn.to(device).sum())
    assert torch.equal(copied, plain)
    assert copied.device.type == name
    assert late.read() == number.read() == 10
