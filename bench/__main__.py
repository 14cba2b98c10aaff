"""`python -m bench`: measures the service and the model, prints tables, and writes them with all figures."""

from __future__ import annotations

import argparse
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
from service.core.strict_json import to_json

SERVICE_PARTS = ("overhead", "requests", "workers")
MODEL_PARTS = ("sampling", "training")
PARTS = (*SERVICE_PARTS, *MODEL_PARTS, "pretraining", "steps", "page", "neighbour")

DURATIONS = {"overhead": 4, "requests": 2, "workers": 4, "pretraining": 4, "steps": 15, "page": 2, "neighbour": 8}
"""Approximate minutes on two idle cores; the parts that measure the model take the minutes they are given."""

Loads = tuple[float, float, float]
Report = Callable[[str], None]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=(*SERVICE_PARTS, *MODEL_PARTS))
    parser.add_argument("--into", type=Path, default=Path("runs/bench"), help="folder for the results")
    _service_options(parser.add_argument_group("service: overhead, requests, workers"))
    _model_options(parser.add_argument_group("model: sampling, training"))
    steps = parser.add_argument_group("quality against steps: steps")
    steps.add_argument("--adapter", type=Path, help="a trained adapter; default: train one on the samples")
    steps.add_argument("--normals", type=Path, help="defect-free photographs; default: the samples")
    steps.add_argument("--candidates", type=int, default=16, help="candidates of every setting")
    review = parser.add_argument_group("the page in Chromium: page")
    review.add_argument("--reviewed", type=int, default=1000, help="pairs to look through")
    review.add_argument("--side", type=int, default=256, help="sides of their images, pixels")
    parser.add_argument(
        "--compiled", action="store_true", help="pretraining: also measure it compiled, which takes minutes more"
    )
    chosen = parser.parse_args(arguments)
    silence_imports()
    keep_freed_memory()
    loads, began = os.getloadavg(), time.monotonic()

    def report(message: str) -> None:
        sys.stderr.write(f"{time.monotonic() - began:6.0f} s  {message}\n")

    if service := [part for part in chosen.parts if part in SERVICE_PARTS]:
        report(f"{', '.join(service)}: about {sum(DURATIONS[part] for part in service)} minutes")
        sys.stdout.write(_measure_service(chosen, service, loads, report))
    if model := [part for part in chosen.parts if part in MODEL_PARTS]:
        _measure_model(chosen, model, loads, report)
    if "pretraining" in chosen.parts:
        from bench.pretraining import run_pretraining

        report(f"pretraining: about {DURATIONS['pretraining']} minutes; on a CPU much more with --compiled")
        device = "cpu" if chosen.device == "auto" else chosen.device
        sys.stdout.write(run_pretraining(device, chosen.into, loads, report, compiled=chosen.compiled))
    if "steps" in chosen.parts:
        from bench.steps import run_steps

        report(f"steps: about {DURATIONS['steps']} minutes")
        sys.stdout.write(run_steps(chosen.adapter, chosen.normals, chosen.candidates, loads, chosen.into, report))
    if "page" in chosen.parts:
        from bench.page import run_page

        report(f"page: about {DURATIONS['page']} minutes")
        sys.stdout.write(run_page(chosen.reviewed, chosen.side, chosen.into, loads, report))
    if "neighbour" in chosen.parts:
        from bench.neighbour import run_neighbour

        report(f"neighbour: about {DURATIONS['neighbour']} minutes")
        sys.stdout.write(run_neighbour(chosen.into, loads, chosen.seconds, report))
    report("done")


def _service_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--pairs", type=int, default=64, help="pairs of every dataset")
    group.add_argument("--rounds", type=int, default=1, help="datasets per side")
    group.add_argument(
        "--seconds",
        type=float,
        default=15,
        help="duration of every load of requests, and of every training",
    )
    cores = len(os.sched_getaffinity(0))
    group.add_argument(
        "--threads", type=int, default=cores, help="threads of the library, and of the worker it is compared with"
    )


def _model_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--size", choices=("mini", "sd15", "tiny"), help="size of the model; default: those that suit the machine"
    )
    group.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    group.add_argument(
        "--minutes", type=float, default=9, help="time for every size; measurements that do not fit are left out"
    )
    group.add_argument("--repeats", type=int, default=3, help="number of rounds; in each, all forms are measured once")
    group.add_argument(
        "--headline", action="store_true", help="leave out the rows without an optimisation, and the job"
    )
    group.add_argument("--steps", type=int, help="steps of the comparison at equal steps; default: the library's")
    group.add_argument("--batch", type=int, help="pairs per batch; default: the library's")
    group.add_argument("--price-per-hour", type=float, help="price of the machine, US dollars")


def _measure_service(chosen: argparse.Namespace, parts: Sequence[str], loads: Loads, report: Report) -> str:
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
            report=report,
        )
    text = f"{table(figures)}\n{machine(loads, SERVICE)}; {time.monotonic() - began:.0f} s in all\n"
    chosen.into.mkdir(parents=True, exist_ok=True)
    (chosen.into / "service.md").write_text(text, encoding="utf-8")
    (chosen.into / "service.json").write_text(to_json(asdict(figures), indent=1), encoding="utf-8")
    return text


def _measure_model(chosen: argparse.Namespace, parts: Sequence[str], loads: Loads, report: Report) -> None:
    from bench.model_parts import Options, measure_size, plan_sizes

    options = Options(
        parts=parts,
        size=chosen.size,
        device=chosen.device,
        minutes=chosen.minutes,
        steps=chosen.steps,
        batch=chosen.batch,
        rounds=chosen.repeats,
        headline=chosen.headline,
        price=chosen.price_per_hour,
        into=chosen.into,
    )
    sizes = plan_sizes(options)
    report(f"{', '.join(parts)}: at most {options.minutes:g} minutes for each of {len(sizes)} sizes")
    for size, device in sizes:
        sys.stdout.write(measure_size(size, device, options, loads, report))
        sys.stdout.flush()


if __name__ == "__main__":
    # SIGTERM ends processes started here in order, like Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    main()
