"""`python -m bench`: measure the service, print the table, and write it with all single figures."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from bench.report import machine, table
from bench.service import measure

PARTS = ("overhead", "requests", "workers")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--pairs", type=int, default=64, help="of every dataset")
    parser.add_argument("--rounds", type=int, default=1, help="datasets per side")
    parser.add_argument("--seconds", type=float, default=15, help="of every load of requests")
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--threads", type=int, default=cores, help="of the library, and of a worker beside it")
    parser.add_argument("--into", type=Path, default=Path("runs/bench"), help="folder of service.md and service.json")
    chosen = parser.parse_args()
    # What was started ends in order, whoever asks for the end.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    loads, began = os.getloadavg(), time.monotonic()

    def tell(remark: str) -> None:
        sys.stderr.write(f"{time.monotonic() - began:6.0f} s  {remark}\n")

    with tempfile.TemporaryDirectory(prefix="pairforge-bench-") as folder:
        figures = measure(
            Path(folder),
            chosen.parts,
            pairs=chosen.pairs,
            rounds=chosen.rounds,
            seconds=chosen.seconds,
            threads=chosen.threads,
            tell=tell,
        )
    text = f"{table(figures)}\n{machine(loads)}; {time.monotonic() - began:.0f} s in all\n"
    chosen.into.mkdir(parents=True, exist_ok=True)
    (chosen.into / "service.md").write_text(text, encoding="utf-8")
    (chosen.into / "service.json").write_text(json.dumps(asdict(figures), indent=1), encoding="utf-8")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
