"""Counts and replaces pixel values in blocks, because NumPy would need an 8-byte index per pixel."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

_Type = TypeVar("_Type", bound=np.generic)

_BLOCK = 1 << 14


def histogram(values: NDArray[Any], length: int) -> NDArray[np.int64]:
    """Count how often each of `0 … length - 1` occurs in an array of unsigned integers."""
    counts, flat = np.zeros(length, np.int64), values.reshape(-1)
    for start in range(0, flat.size, _BLOCK):
        counts += np.bincount(flat[start : start + _BLOCK], minlength=length)
    return counts


def replaced(values: NDArray[Any], table: NDArray[_Type]) -> NDArray[_Type]:
    """Compute `table[values]`."""
    result = np.empty(values.shape, table.dtype)
    flat, into = values.reshape(-1), result.reshape(-1)
    for start in range(0, flat.size, _BLOCK):
        into[start : start + _BLOCK] = table[flat[start : start + _BLOCK]]
    return result
