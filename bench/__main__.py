"""`python -m bench`: measure the service and the model, print the tables, and write them with all single figures."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from model.runtime.library_logging import silence_imports
from model.runtime.malloc import keep_freed_memory

SERVICE_PARTS = ("overhead", "requests", "workers")
MODEL_PARTS = ("sampling", "training")
PARTS = (*SERVICE_PARTS, *MODEL_PARTS, "pretraining", "steps")

DURATIONS = {"overhead": 4, "requests": 2, "workers": 4, "pretraining": 4, "steps": 15}
"""Minutes on two idle cores, roughly; what measures the model takes the minutes that it is given."""

Loads = tuple[float, float, float]
Tell = Callable[[str], None]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=(*SERVICE_PARTS, *MODEL_PARTS))
    parser.add_argument("--into", type=Path, default=Path("runs/bench"), help="folder of the results")
    _service_options(parser.add_argument_group("service: overhead, requests, workers"))
    _model_options(parser.add_argument_group("model: sampling, training"))
    steps = parser.add_argument_group("quality against steps: steps")
    steps.add_argument("--adapter", type=Path, help="a trained adapter; by default one is trained on the samples")
    steps.add_argument("--normals", type=Path, help="defect-free photographs; by default the samples")
    steps.add_argument("--candidates", type=int, default=16, help="of every setting")
    parser.add_argument("--compiled", action="store_true", help="pretraining: also compiled, which takes minutes more")
    chosen = parser.parse_args(arguments)
    silence_imports()
    keep_freed_memory()
    loads, began = os.getloadavg(), time.monotonic()

    def tell(remark: str) -> None:
        sys.stderr.write(f"{time.monotonic() - began:6.0f} s  {remark}\n")

    if service := [part for part in chosen.parts if part in SERVICE_PARTS]:
        tell(f"{', '.join(service)}: about {sum(DURATIONS[part] for part in service)} minutes")
        sys.stdout.write(_measure_service(chosen, service, loads, tell))
    if model := [part for part in chosen.parts if part in MODEL_PARTS]:
        _measure_model(chosen, model, loads, tell)
    if "pretraining" in chosen.parts:
        from bench.pretraining import run_pretraining

        tell(f"pretraining: about {DURATIONS['pretraining']} minutes, on a CPU much more when compiled")
        device = "cpu" if chosen.device == "auto" else chosen.device
        sys.stdout.write(run_pretraining(device, chosen.into, loads, tell, compiled=chosen.compiled))
    if "steps" in chosen.parts:
        from bench.steps import run_steps

        tell(f"steps: about {DURATIONS['steps']} minutes")
        sys.stdout.write(run_steps(chosen.adapter, chosen.normals, chosen.candidates, loads, chosen.into, tell))
    tell("done")


def _service_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--pairs", type=int, default=64, help="of every dataset")
    group.add_argument("--rounds", type=int, default=1, help="datasets per side")
    group.add_argument("--seconds", type=float, default=15, help="of every load of requests")
    cores = len(os.sched_getaffinity(0))
    group.add_argument("--threads", type=int, default=cores, help="of the library, and of a worker beside it")


def _model_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--size", choices=("mini", "sd15", "tiny"), help="by default those that suit the machine")
    group.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    group.add_argument("--minutes", type=float, default=9, help="for every size; what does not fit is left out")
    group.add_argument("--repeats", type=int, default=3, help="rounds in which all forms take turns")
    group.add_argument("--steps", type=int, help="of the comparison at equal steps; by default the library's own")
    group.add_argument("--batch", type=int, help="pairs worked on together; by default the library's own")
    group.add_argument("--price-per-hour", type=float, help="of the machine, US dollars")


def _measure_service(chosen: argparse.Namespace, parts: Sequence[str], loads: Loads, tell: Tell) -> str:
    from bench.machine import SERVICE, machine
    from bench.report import table
    from bench.service import measure

    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="pairforge-bench-") as folder:
        figures = measure(
            Path(folder),
            parts,
            pairs=chosen.pairs,
            rounds=chosen.rounds,
            seconds=chosen.seconds,
            threads=chosen.threads,
            tell=tell,
        )
    text = f"{table(figures)}\n{machine(loads, SERVICE)}; {time.monotonic() - began:.0f} s in all\n"
    chosen.into.mkdir(parents=True, exist_ok=True)
    (chosen.into / "service.md").write_text(text, encoding="utf-8")
    (chosen.into / "service.json").write_text(json.dumps(asdict(figures), indent=1), encoding="utf-8")
    return text


def _measure_model(chosen: argparse.Namespace, parts: Sequence[str], loads: Loads, tell: Tell) -> None:
    from bench.model_parts import Options, measure_size, plan_sizes

    options = Options(
        parts=parts,
        size=chosen.size,
        device=chosen.device,
        minutes=chosen.minutes,
        steps=chosen.steps,
        batch=chosen.batch,
        rounds=chosen.repeats,
        price=chosen.price_per_hour,
        into=chosen.into,
    )
    sizes = plan_sizes(options)
    tell(f"{', '.join(parts)}: at most {options.minutes:g} minutes for each of {len(sizes)} sizes")
    for size, device in sizes:
        sys.stdout.write(measure_size(size, device, options, loads, tell))
        sys.stdout.flush()


if __name__ == "__main__":
    # What was started ends in order, whoever asks for the end.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    main()
