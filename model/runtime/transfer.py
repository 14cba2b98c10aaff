"""Copies between CPU and device that wait for neither."""

from __future__ import annotations

import torch
from torch import Tensor

from model.runtime import switches
from model.runtime.switches import Switch


def on_device(drawn: Tensor, device: torch.device) -> Tensor:
    """Copy what was drawn on the CPU to the device, without waiting for it."""
    if device.type == "cuda" and switches.on(Switch.LATE_COPIES):
        return drawn.pin_memory().to(device, non_blocking=True)
    return drawn.to(device)


class LateNumber:
    """A number on its way from the device; reading it later waits for none of the work given to the device since.

    Args:
        value: a scalar on any device.
    """

    def __init__(self, value: Tensor) -> None:
        self._value = value
        self._arrived: torch.cuda.Event | None = None
        if value.device.type == "cuda" and switches.on(Switch.LATE_COPIES):
            self._value = torch.empty((), dtype=value.dtype, pin_memory=True).copy_(value, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record()
        else:
            self._value = value.cpu()

    def read(self) -> float:
        """Return the number, waiting for its arrival only."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return float(self._value)
