"""Measures the model: chooses sizes that suit the machine, and how long they may take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from bench import forms, sampling, training
from bench.hardware import PRICE, device_name, measure_peak
from bench.job import measure_job
from bench.machine import MODEL, machine
from bench.model_report import Results, write_results
from bench.sizes import build_subject
from bench.timebox import Timebox
from model.dualanodiff.sampling.config import resolve_sampling
from service.core.options.dualanodiff import SamplingConfig

FEW = 1
"""Denoising steps for Stable Diffusion's size on a CPU, where each takes half a minute."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the user chose.

    Attributes:
        parts: "sampling", "training" or both.
        size: size of the model; None for those that suit the machine.
        device: "cpu", "cuda", or "auto" for the GPU if there is one.
        minutes: time per size.
        steps, batch: None for values that suit the size.
        rounds: most rounds.
        headline: whether to leave out the rows without an optimisation, and the job.
        price: US dollars per hour; None for a usual price.
        into: folder for the results.
    """

    parts: Sequence[str]
    size: str | None
    device: str
    minutes: float
    steps: int | None
    batch: int | None
    rounds: int
    headline: bool
    price: float | None
    into: Path


def plan_sizes(options: Options) -> list[tuple[str, str]]:
    """Choose sizes and their devices; by default the shipped base on the CPU, which it was made for."""
    gpu = "cuda" if torch.cuda.is_available() else "cpu"
    device = gpu if options.device == "auto" else options.device
    if options.size is not None:
        return [(options.size, device)]
    return [("mini", "cpu" if options.device == "auto" else device), ("sd15", device)]


def measure_size(
    size: str, device: str, options: Options, loads: tuple[float, float, float], report: Callable[[str], None]
) -> str:
    """Measure one size, write the results after every row, and return the tables."""
    box = Timebox(options.minutes, report)
    brief = size == "sd15" and device == "cpu"
    report(f"size {size} on {device}, at most {options.minutes:g} minutes{': a few steps' if brief else ''}")
    subject = build_subject(size, device)
    default = resolve_sampling(subject.adapter.model.base, {}, has_normals=True)
    steps = options.steps or (FEW if brief else SamplingConfig().steps)
    batch = options.batch or (1 if brief else default.batch)
    settings = {
        "pairs denoised together": str(batch),
        "guidance": f"{default.guidance_scale:g}",
        "threads": str(torch.get_num_threads()),
    }
    price = options.price if options.price is not None else PRICE[device]
    results = Results(size, device, settings, price, measure_peak(device))
    on = machine(loads, MODEL, device_name(device))

    def save() -> None:
        write_results(results, on, options.into)

    rounds: list[Callable[[int], None]] = []
    if "sampling" in options.parts:
        compared = forms.compare(subject.adapter, steps=steps, batch=batch, brief=brief, headline=options.headline)
        rounds.append(lambda turn: sampling.sampling_round(results, subject, compared, box, turn, save))
    if "training" in options.parts and not brief:
        learned = training.compare(subject, options.batch, headline=options.headline)
        rounds.append(lambda turn: training.training_round(results, subject, learned, box, turn, save))
    measures_job = "sampling" in options.parts and not (brief or options.headline)
    for turn in range(1 if brief else options.rounds):
        for measure in rounds:
            measure(turn)
        if turn == 0 and measures_job and box.allows("job", compared.reference):
            results.job = measure_job(subject, batch, report)
            save()
    return write_results(results, on, options.into)
