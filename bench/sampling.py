"""Measures sampling: the reference form, ours doing the same work, ours by default and without each optimisation.

Forms take turns, round after round, so that other load on the machine affects all of them alike. In every round a form
is built again, warmed by one pass, and then timed over a single pass and over a whole job: noise to image, part and
mask. The table has the medians.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from bench.forms import Comparison, Form
from bench.hardware import count_operations, full_mantissas, peak_memory, timed
from bench.model_report import Agreement, Results
from bench.sizes import Subject
from bench.timebox import Timebox
from bench.variants import unfolded, unmerged
from model.dualanodiff.adapter import DualAnoDiffAdapter
from model.dualanodiff.reference import ReferenceDenoiser, guided_embeddings, reference_latents, reference_pair
from model.dualanodiff.sampling.cuda_graphs import Compiler, CudaGraphRunner
from model.dualanodiff.sampling.loop import Predict
from model.dualanodiff.sampling.merged_unet import MergedUNet
from model.dualanodiff.sampling.sampler import Sampler, prepare_sampling, sample_pairs
from model.dualanodiff.unet import ForwardOptions
from model.runtime.seeding import draw_noise, pair_seed
from model.types import Candidate
from service.core.options.dualanodiff import SamplingConfig

TIMESTEP = 500
"""Of the passes that are timed by themselves."""

PREDICTION = 1e-4
"""Largest difference of predictions in fp32, relative to their norm."""

LEVELS = 1.0
"""Largest difference of an fp32 image's pixels in grey levels, from rounding to the nearest level."""

TRUE_LEVELS = 0.02
"""Largest mean difference over an fp32 image, grey levels."""


def sampling_round(
    results: Results, subject: Subject, plan: Comparison, box: Timebox, turn: int, save: Callable[[], None]
) -> None:
    """Measure all forms once, as far as time allows.

    Args:
        turn: number of the round; the first round also compares the outputs.
        save: called after every row.
    """
    if not box.allows(plan.reference):
        return
    with box.timing(plan.reference, f"round {turn + 1}: {plan.reference}"):
        latents = _measure_reference(results, subject.adapter, plan)
    if turn == 0:
        results.agreements.append(pass_agreement(subject.adapter, plan.equal))
    save()
    for form in plan.forms:
        if not box.allows(form.name, form.against, plan.reference):
            continue
        with box.timing(form.name, f"round {turn + 1}: {form.name}"):
            made = _measure_form(results, subject, form, plan, box)
        if turn == 0 and form.compared:
            results.agreements += _agreements(subject.adapter, latents, made[0], form)
        save()


@torch.no_grad()
def _measure_reference(results: Results, adapter: DualAnoDiffAdapter, plan: Comparison) -> Tensor:
    """Time one pair and one pass of it; returns the pair's latents."""
    model, device = adapter.model, adapter.model.device.type
    config, name = plan.equal, plan.reference
    row = results.row(results.sampling, name, "fp32")
    with peak_memory(device) as memory:
        denoiser = ReferenceDenoiser(model).eval()
        noise = pair_noise(adapter, config)
        run = reference_pass(adapter, denoiser, config)
        if not row.operations:
            row.operations, row.pass_rows = count_operations(run), rows_of_pass(replace(config, batch=1))
        row.pass_seconds += timed(device, run, plan.passes)
        kept: list[Tensor] = []

        def pair() -> None:
            latents = reference_latents(model, denoiser, noise, config.steps, config.guidance_scale, config.scheduler)
            reference_pair(adapter, latents)
            kept.append(latents)

        row.took(device, pair)
    row.memory = max(row.memory, memory.peak)
    return kept[0]


def _measure_form(results: Results, subject: Subject, form: Form, plan: Comparison, box: Timebox) -> list[Candidate]:
    """Time a pass and a job; returns the job's candidates."""
    device = subject.adapter.model.device.type
    with peak_memory(device) as memory:
        sampler = prepared_form(subject, form, plan.compiler)
        run = one_pass(sampler, sampler.predict)
        if form.run == "compiled":
            run()
            plan.compiler.wait(box.left())
        kind = form.change if form.change in (unmerged, unfolded) else None
        if kind not in plan.operations:
            plan.operations[kind] = count_operations(one_pass(sampler, sampler.adapter.model.denoiser, pairs=1))
        taken = timed(device, run, plan.passes)
        name = row_name(form, sampler.predict)
        row = results.row(results.sampling, name, form.config.precision, form.against)
        row.pass_rows, row.operations = rows_of_pass(form.config), plan.operations[kind] * form.config.batch
        row.pass_seconds += taken
        made: list[Candidate] = []

        def job() -> None:
            made.extend(sample_pairs(sampler, 0, form.config.batch))

        row.took(device, job, form.config.batch)
    row.memory = max(row.memory, memory.peak)
    return made


def prepared_form(subject: Subject, form: Form, compiler: Compiler) -> Sampler:
    """Prepare a form for sampling, without the optimisation that it removes."""
    adapter, normals = subject.adapter, subject.normals if form.config.anchored else []
    compiles = compiler if form.run == "compiled" else None
    sampler = prepare_sampling(adapter, form.config, normals=normals, compiler=compiles)
    denoiser = sampler.adapter.model.denoiser
    if form.change is not None and isinstance(denoiser, MergedUNet):
        form.change(denoiser, adapter.model.denoiser)
    return replace(sampler, predict=denoiser) if form.run == "plain" else sampler


def row_name(form: Form, predict: Predict) -> str:
    """Name the row; adds what the passes lack of the form, which is known after a pass and all compilation."""
    if form.run == "plain" or not isinstance(predict, CudaGraphRunner):
        return form.name
    had = {"compiled": predict.compiled or form.run != "compiled", "captured": predict.captured}
    lacking = " nor ".join(what for what, there in had.items() if not there)
    return f"{form.name} (not {lacking})" if lacking else form.name


def rows_of_pass(config: SamplingConfig) -> int:
    """Return the rows of a pass: both branches of every pair, twice with guidance."""
    return config.batch * (4 if config.guidance_scale != 1 else 2)


def one_pass(sampler: Sampler, predict: Predict, pairs: int | None = None) -> Callable[[], Tensor]:
    """Make a function that runs one step's pass through the denoiser.

    Args:
        pairs: pairs per pass; None for a full batch.
    """
    count = pairs or sampler.config.batch
    text = sampler.text.repeat_interleave(count, dim=1)
    latents = pair_noise(sampler.adapter, sampler.config)[:, None].repeat(1, text.shape[1], 1, 1, 1)
    timestep = torch.tensor(TIMESTEP, device=text.device)

    @torch.no_grad()
    def run() -> Tensor:
        return predict(latents, timestep, text, ForwardOptions())

    return run


def pair_noise(adapter: DualAnoDiffAdapter, config: SamplingConfig) -> Tensor:
    """Draw the noise of the first pair, `(2, C, h, w)`."""
    model = adapter.model
    cells = model.config.resolution // model.base.factor
    noise = draw_noise(pair_seed(config.seed, 0), (2, model.base.latent_channels, cells, cells))
    return noise.to(model.device)


def _agreements(adapter: DualAnoDiffAdapter, latents: Tensor, ours: Candidate, form: Form) -> Iterator[Agreement]:
    """Compare the first pair's images; without limits on a GPU, where both forms round differently."""
    theirs = reference_pair(adapter, latents)
    exact = form.config.precision == "fp32" and adapter.model.device.type == "cpu"
    for name, image, other in (("image", ours.image, theirs.image), ("part", ours.part, theirs.part)):
        if image is None:
            continue
        difference = np.abs(image.astype(int) - other)
        what = f"{form.config.precision}, {form.config.steps} steps, {name}, grey levels"
        yield Agreement(f"{what}, greatest", float(difference.max()), LEVELS if exact else None)
        yield Agreement(f"{what}, mean", float(difference.mean()), TRUE_LEVELS if exact else None)


@torch.no_grad()
def pass_agreement(adapter: DualAnoDiffAdapter, config: SamplingConfig) -> Agreement:
    """Compare both forms' predictions for one pair in fp32, without TF32's short mantissas."""
    full = replace(config, precision="fp32", batch=1, guidance_scale=1.0)
    with full_mantissas():
        sampler = prepare_sampling(adapter, full)
        ours = one_pass(sampler, sampler.adapter.model.denoiser)()
        theirs = reference_pass(adapter, ReferenceDenoiser(adapter.model).eval(), full)()
    return Agreement("fp32, prediction of a pass, relative", float((ours - theirs).norm() / theirs.norm()), PREDICTION)


def reference_pass(
    adapter: DualAnoDiffAdapter, denoiser: ReferenceDenoiser, config: SamplingConfig
) -> Callable[[], Tensor]:
    """Make a function that runs one pass of the reference form, for one pair."""
    model, noise = adapter.model, pair_noise(adapter, config)
    text = guided_embeddings(model) if config.guidance_scale != 1 else model.prompt_embeddings()
    latents = noise[:, None].repeat(1, text.shape[1], 1, 1, 1)
    return partial(denoiser, latents, torch.tensor(TIMESTEP, device=noise.device), text)
