"""Keeping freed memory, instead of giving it back to the system after every operation.

Activations of a few megabytes come and go hundreds of times in a step. The C library of Linux gives blocks of that size
back as soon as they are free, and the system clears every page of the next one: a tenth of a training step on a CPU.
"""

from __future__ import annotations

import ctypes
import os
import platform

KEPT = 1 << 30
"""Bytes that may lie free at the end of the heap before it is given back; what is free in between stays in any case."""

LARGEST = 1 << 25
"""Bytes of the largest block from the heap, the most that glibc allows. Larger ones are given back at once."""

TOLD = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_TOP_PAD_")
"""Variables by which users tell glibc what to keep."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Names of the two in `mallopt(3)`."""


def keep_freed_memory() -> None:
    """Have this process keep freed memory; nothing happens where the C library is another, or told by the user."""
    told = any(name in os.environ for name in TOLD) or "glibc.malloc." in os.environ.get("GLIBC_TUNABLES", "")
    if told or platform.libc_ver()[0] != "glibc":
        return
    library = ctypes.CDLL(None)
    library.mallopt(_TRIM_THRESHOLD, KEPT)
    library.mallopt(_MMAP_THRESHOLD, LARGEST)
