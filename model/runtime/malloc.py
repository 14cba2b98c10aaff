"""Whether freed memory is kept, instead of given back to the system after every operation.

Activations of a few megabytes come and go hundreds of times in a step. The C library of Linux gives blocks of that size
back as soon as they are free, and the system clears every page of the next one: a tenth of a training step on a CPU.
"""

from __future__ import annotations

import ctypes
import os
import platform

from model.runtime import switches
from model.runtime.switches import Switch

KEPT = 1 << 30
"""Bytes that may lie free at the end of the heap before it is given back; what is free in between stays in any case."""

LARGEST = 1 << 25
"""Bytes of the largest block that the heap grows for, the most that glibc allows. Larger ones are given back
at once, unless they fit into what the heap has kept."""

CHOSEN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_TOP_PAD_")
"""Environment variables in which users choose what glibc keeps."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Names of the two in `mallopt(3)`."""


def keep_freed_memory() -> None:
    """Make this process keep freed memory, unless the C library is not glibc or the user has set it up already."""
    chosen = any(name in os.environ for name in CHOSEN) or "glibc.malloc." in os.environ.get("GLIBC_TUNABLES", "")
    if chosen or platform.libc_ver()[0] != "glibc" or not switches.on(Switch.KEPT_MEMORY):
        return
    library = ctypes.CDLL(None)
    library.mallopt(_TRIM_THRESHOLD, KEPT)
    library.mallopt(_MMAP_THRESHOLD, LARGEST)


def give_back_freed_memory() -> None:
    """Give the system what lies free in the heap, if the C library is glibc: a resident set is then what is in use."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
