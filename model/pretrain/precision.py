"""Computes in the precision in which the device is faster, see `model.runtime.matrix_units`."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def computing_in(precision: torch.dtype, device: torch.device) -> AbstractContextManager[object]:
    """Autocast to `precision`; does nothing for float32, the precision of the weights."""
    return nullcontext() if precision is torch.float32 else torch.autocast(device.type, precision)
