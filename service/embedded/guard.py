"""Kills what is left of a stack when the process at the other end of stdin has ended.

Started as `python -m service.embedded.guard`. A process that is killed cannot clean up after itself, and the kernel
kills only its direct children; the guard kills the workers' own children.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from service.embedded.processes import MARK, end_marked


def main() -> None:
    """Wait for the end of stdin, then kill every process of the stack named in the environment."""
    sys.stdin.buffer.read()
    end_marked(Path(os.environ[MARK]))


if __name__ == "__main__":
    main()
