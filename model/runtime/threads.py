"""Threads that wait for each other awake for microseconds, then asleep.

By default the threads of an OpenMP team spin until the last of them is done. Where another program has one of the
cores, that thread waits for its turn while the others burn theirs. Threads that sleep at once are woken for every
layer of a small network. On two threads in fp32, a training made 2.33 steps a second spinning, 1.30 asleep and 1.94
with a short spin; beside a busy process 0.70, 1.16 and 0.98.
"""

from __future__ import annotations

import os

BRIEFLY = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "2000", "KMP_BLOCKTIME": "0"}
"""Environment variables of GNU's and of Intel's and LLVM's OpenMP, which each reads when it is loaded."""


def limit_spinning() -> None:
    """Let threads wait asleep after a short spin, unless the user has chosen; call it before torch is imported."""
    if not BRIEFLY.keys() & os.environ.keys():
        os.environ.update(BRIEFLY)
