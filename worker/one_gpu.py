"""Gives each worker of a machine its own GPU: `python -m worker.one_gpu FOLDER PROGRAM ...`.

Becomes PROGRAM, which sees one GPU: the first that no other worker has locked. The locks are on files in FOLDER, which
the workers share; a lock ends with the program, however that ends.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

LIST = ("nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader")


def take(folder: Path, gpus: list[str]) -> str | None:
    """Lock and return a free GPU; None if other workers have all of them."""
    for gpu in gpus:
        lock = os.open(folder / f"{gpu}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
        else:
            os.set_inheritable(lock, True)
            return gpu
    return None


def main() -> None:
    folder, *program = sys.argv[1:]
    gpus = subprocess.run(LIST, stdout=subprocess.PIPE, text=True, check=True).stdout.split()  # noqa: S603 - a constant
    gpu = take(Path(folder), gpus)
    if gpu is None:
        sys.exit(f"each of the {len(gpus)} GPUs already has a worker")
    os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    os.execvp(program[0], program)  # noqa: S606 - the command line is our own


if __name__ == "__main__":
    main()
