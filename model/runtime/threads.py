"""Threads that wait for each other asleep.

By default the threads of an OpenMP team spin until the last of them is done. Where another program has one of the
cores, that thread waits for its turn while the others burn theirs. Beside ten busy processes on two threads, small
convolutions made 0.1 to 0.4 steps a second spinning, 7 to 76 with a short spin, and 110 to 115 asleep.
"""

from __future__ import annotations

import os

ASLEEP = {"OMP_WAIT_POLICY": "passive", "KMP_BLOCKTIME": "0"}
"""Environment variables of GNU's and of Intel's and LLVM's OpenMP, which each reads when it is loaded."""


def wait_asleep() -> None:
    """Let threads wait asleep, unless the user has chosen otherwise; to be called before torch is imported."""
    for name, value in ASLEEP.items():
        os.environ.setdefault(name, value)
