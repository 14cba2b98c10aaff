"""Measures pretraining of the embedded base's U-Net: pairs per second by batch and threads, eager and compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from bench.hardware import device_name, measure_peak, timed
from bench.machine import MODEL, machine
from model.diffusion.noise_schedule import NoiseSchedule
from model.dualanodiff.unet import TwoBranchUNet
from model.kernels.group_norm import use_channels_last
from model.pretrain.compiling import faster
from model.pretrain.pairs import build_unet, pair_objective
from model.pretrain.presets import PRESETS
from model.pretrain.procedural import vocabulary
from model.pretrain.run import SCHEDULER
from model.pretrain.text import MAX_TOKENS, build_text_encoder, build_tokenizer
from model.runtime.matrix_units import faster_precision
from service.core.strict_json import to_json

BATCHES = (16, 32, 64)
THREADS = (1, 2)
LATENTS = 4
COMPILE_SECONDS = 400.0
"""Limit for compilation; short pretrainings allow less."""


@dataclass(frozen=True, slots=True)
class Row:
    """Measurements of one setting: pairs per second, and the share of the threads' peak that it uses."""

    batch: int
    threads: int
    form: str
    pairs_per_second: float
    share_of_peak: float
    note: str = ""


def run_pretraining(
    device: str, into: Path, loads: tuple[float, float, float], report: Callable[[str], None], *, compiled: bool
) -> str:
    """Measure all settings of the device's preset, write the results, and return the table."""
    rows = list(measure_rows(device, BATCHES, THREADS if device == "cpu" else THREADS[:1], report, compiled=compiled))
    precision = str(faster_precision(torch.device(device))).removeprefix("torch.")
    text = f"Pretraining of the pairs in {precision}\n\n{pretraining_table(rows)}\n"
    text += machine(loads, MODEL, device_name(device)) + "\n"
    into.mkdir(parents=True, exist_ok=True)
    (into / "pretraining.md").write_text(text, encoding="utf-8")
    (into / "pretraining.json").write_text(to_json([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    return text


def pretraining_table(rows: Sequence[Row]) -> str:
    """Format the rows as a Markdown table."""
    lines = ["| pairs per step | threads | form | pairs/s | of peak | |", "|---:|---:|---|---:|---:|---|"]
    lines += [
        f"| {r.batch} | {r.threads} | {r.form} | {r.pairs_per_second:.1f} | {r.share_of_peak:.0%} | {r.note} |"
        for r in rows
    ]
    return "".join(f"{line}\n" for line in lines)


def measure_rows(
    device: str, batches: Sequence[int], threads: Sequence[int], report: Callable[[str], None], *, compiled: bool
) -> Iterator[Row]:
    """Yield a row for every batch and number of threads, with the objective eager, then compiled."""
    before = torch.get_num_threads()
    preset = PRESETS["gpu" if device == "cuda" else "cpu"]
    place = torch.device(device)
    precision = faster_precision(place)
    try:
        for count in threads:
            torch.set_num_threads(count)
            measured = measure_peak(device)
            peak = measured.bf16 if precision is torch.bfloat16 else measured.fp32
            for batch in batches:
                config = replace(preset.pairs, batch=batch)
                unet = build_unet(config, LATENTS, preset.pixels // 4, preset.text_width)
                denoiser = TwoBranchUNet.fresh(unet, with_background=False).to(place)
                use_channels_last(denoiser)
                words = len(build_tokenizer(vocabulary()))
                text_encoder = build_text_encoder(words, preset.text_width, preset.text_layers, 0).to(place)
                schedule = NoiseSchedule.from_config(SCHEDULER, place)
                objective = pair_objective(denoiser, text_encoder, schedule, config, precision)
                networks = torch.nn.ModuleList([denoiser, text_encoder]).train()
                optimizer = torch.optim.AdamW(networks.parameters(), lr=1e-4, fused=True)
                inputs = _inputs(batch, preset.pixels // 4, words, place)

                def step(compute: Callable[..., Tensor]) -> None:
                    compute(*inputs, True).backward()  # noqa: B023  called before the next turn
                    optimizer.step()  # noqa: B023
                    optimizer.zero_grad(set_to_none=True)  # noqa: B023

                with FlopCounterMode(display=False) as counted:
                    step(objective)
                operations = counted.get_total_flops()
                forms = [("as written", objective, "")]
                if compiled:
                    chosen, choice = faster(objective, (*inputs, True), COMPILE_SECONDS)
                    forms.append(("compiled" if chosen is not objective else "not compiled", chosen, choice))
                for form, compute, note in forms:
                    seconds = min(timed(device, lambda compute=compute: step(compute), 4))  # type: ignore[misc]
                    report(f"{batch} pairs, {count} threads, {form}: {batch / seconds:.1f} pairs/s {note}")
                    yield Row(batch, count, form, batch / seconds, operations / seconds / peak, note)
    finally:
        torch.set_num_threads(before)


def _inputs(batch: int, cells: int, words: int, device: torch.device) -> tuple[Tensor, ...]:
    """Make latents, masks, tokens, timesteps and noise."""
    generator = torch.Generator(device).manual_seed(0)
    shape = (2, batch, LATENTS, cells, cells)
    latents, noise = (torch.randn(shape, generator=generator, device=device) for _ in range(2))
    masks = torch.rand((batch, 1, cells, cells), generator=generator, device=device)
    tokens = torch.randint(words, (2, batch, MAX_TOKENS), generator=generator, device=device)
    timesteps = torch.randint(1000, (batch,), generator=generator, device=device)
    return latents, masks, tokens, timesteps, noise
