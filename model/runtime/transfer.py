"""Copies between CPU and device that wait for neither."""

from __future__ import annotations

import torch
from torch import Tensor


def on_device(drawn: Tensor, device: torch.device) -> Tensor:
    """What was drawn on the CPU, copied without waiting for the device."""
    return drawn.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else drawn


class LateNumber:
    """A number on its way from the device; whoever reads it later does not wait for what the device was given since.

    Args:
        value: a scalar on any device.
    """

    def __init__(self, value: Tensor) -> None:
        self._value = value
        self._arrived: torch.cuda.Event | None = None
        if value.device.type == "cuda":
            self._value = torch.empty((), dtype=value.dtype, pin_memory=True).copy_(value, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record()

    def read(self) -> float:
        """The number."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return float(self._value)
