"""Runs a program that ends with its parent: `python -m service.embedded.parent_death PARENT SIGNAL PROGRAM ...`.

The kernel sends SIGNAL to the program when its parent, whose process id is PARENT, has ended for any reason.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence

PYTHON = (sys.executable, "-P", "-m")
"""-P keeps Python from importing a folder `service` or `worker` in the user's working directory."""

_PR_SET_PDEATHSIG = 1
"""prctl(2)."""


def ended_with_parent(arguments: Sequence[str], signal: int) -> list[str]:
    """Build the command line of a child that gets `signal` when this process ends."""
    return [*PYTHON, "service.embedded.parent_death", str(os.getpid()), str(int(signal)), *arguments]


def main() -> None:
    parent, signal, *arguments = sys.argv[1:]
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal))
    if os.getppid() != int(parent):
        sys.exit("the parent process has already ended")
    os.execvp(arguments[0], arguments)  # noqa: S606 - the command line is our own


if __name__ == "__main__":
    main()
