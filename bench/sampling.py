"""Sampling: the reference form, ours at equal steps and with its defaults, and ours with each optimisation taken back.

Forms take turns, round after round, so that what else the machine does meets all of them alike. In every round a form
is built anew, warmed by one pass, and then timed over a pass by itself and over a whole job: noise to image, part and
mask. The table has the medians.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from bench.hardware import clocked, count_operations, peak_memory, timed
from bench.model_report import Agreement, Results
from bench.reference import SCHEDULER, STEPS, ReferenceDenoiser, reference_latents, reference_pair
from bench.sizes import Subject
from bench.timebox import Timebox
from bench.variants import Change, channels_first, guided_apart, plain_group_norm, unfolded, unmerged
from model.adapter import Adapter
from model.merging import MergedDenoiser
from model.placement import NormalImage
from model.sampler import Sampler, prepare_sampling, sample_pairs
from model.sampling import SamplingConfig, draw_noise, pair_seed, resolve_sampling
from model.types import Candidate

PASSES = 3
"""Timed passes per round; one where a pass takes minutes."""

TIMESTEP = 500
"""Of the passes that are timed by themselves."""

PREDICTION = 1e-4
"""By which predictions in fp32 may differ, relative to their norm."""

LEVELS = 1.0
"""Grey levels by which a picture in fp32 may differ: rounding at the very edge between two."""

TRUE_LEVELS = 0.02
"""The same, on average over the picture."""


@dataclass(frozen=True, slots=True)
class Form:
    """One of the forms that are compared.

    Attributes:
        name: its row in the table.
        config: how it samples.
        pairs: of its job.
        change: what is taken back; None for nothing.
        against: name of the row that its speed is divided by.
        compared: whether its first pair is that of the reference form, to within rounding.
    """

    name: str
    config: SamplingConfig
    pairs: int
    change: Change | None
    against: str
    compared: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is compared with what.

    Attributes:
        equal: of the comparison at equal steps: the reference form's scheduler, without anchoring.
        reference: name of the reference form's row.
        forms: ours, in the order of importance.
        passes: timed per round, after one that is not.
        operations: of a pass with one pair: what is taken back → number. Counting takes longer than a pass.
    """

    equal: SamplingConfig
    reference: str
    forms: list[Form]
    passes: int
    operations: dict[Change | None, int] = field(default_factory=dict)


def compare(adapter: Adapter, *, steps: int, batch: int, brief: bool) -> Comparison:
    """The forms for an adapter.

    Args:
        steps: of the comparison at equal steps.
        batch: pairs that ours denoises together.
        brief: only what takes these steps, and takes nothing back.
    """
    base = adapter.model.base
    chosen = {"scheduler": SCHEDULER, "steps": steps, "batch": batch}
    guidance = resolve_sampling(base, {}, has_normals=True).guidance_scale
    equal = resolve_sampling(base, {**chosen, "guidance_scale": guidance}, has_normals=False)
    reference = f"reference form, {steps} steps"
    return Comparison(equal, reference, list(_forms(adapter, equal, reference, brief=brief)), 1 if brief else PASSES)


def sampling_round(
    results: Results, subject: Subject, plan: Comparison, box: Timebox, turn: int, save: Callable[[], None]
) -> None:
    """Measure all forms once, as far as there is time.

    Args:
        turn: number of the round; the first one compares the outputs too.
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
        if not box.allows(form.name):
            continue
        with box.timing(form.name, f"round {turn + 1}: {form.name}"):
            made = _measure_form(results, subject, form, plan)
        if turn == 0 and form.compared:
            results.agreements += _agreements(subject.adapter, latents, made[0], form)
        save()


def _forms(adapter: Adapter, equal: SamplingConfig, reference: str, *, brief: bool) -> Iterator[Form]:
    """What is taken back is taken from the default precision at equal steps."""
    base, batch = adapter.model.base, equal.batch
    ours = f"ours, {equal.steps} steps, {equal.precision}"
    yield Form(ours, equal, batch, None, reference, compared=True)
    if equal.precision != "fp32":
        full = replace(equal, precision="fp32")
        yield Form(f"ours, {equal.steps} steps, fp32", full, batch, None, reference, compared=True)
    if brief:
        return
    default = resolve_sampling(base, {"batch": batch}, has_normals=True)
    yield Form(_named(default), default, batch, None, _extrapolated(reference, equal.steps), compared=False)
    yield Form("… one pair at a time", replace(equal, batch=1), 1, None, ours, compared=False)
    changes: dict[str, Change] = {
        "… guidance in a pass of its own": guided_apart,
        "… LoRAs beside the weights": unmerged,
        "… SAIM written out": unfolded,
        "… channels first": channels_first,
    }
    if adapter.model.device.type == "cpu" and equal.precision == "bf16":
        changes["… group norm in bf16"] = plain_group_norm
    for name, change in changes.items():
        yield Form(name, equal, batch, change, ours, compared=False)


def _named(default: SamplingConfig) -> str:
    start = f", anchored, from {default.sketch_strength or default.strength:g} of the noise" if default.anchored else ""
    return f"ours, defaults: {default.steps} steps{start}, {default.precision}"


def _extrapolated(reference: str, steps: int) -> str:
    return reference.replace(f"{steps} steps", f"{STEPS} steps (from its passes' time)")


@torch.no_grad()
def _measure_reference(results: Results, adapter: Adapter, plan: Comparison) -> Tensor:
    """Time one pair and one pass; returns the pair's latents."""
    model, device = adapter.model, adapter.model.device.type
    config, name = plan.equal, plan.reference
    row = results.row(results.sampling, name, "fp32")
    with peak_memory(device) as memory:
        denoiser = ReferenceDenoiser(model).eval()
        noise = pair_noise(adapter, config)
        run = reference_pass(adapter, denoiser, config)
        if not row.operations:
            row.operations, row.pass_rows = count_operations(run), 2
        row.pass_seconds += timed(device, run, plan.passes)
        kept: list[Tensor] = []

        def pair() -> None:
            latents = reference_latents(model, denoiser, noise, config.steps, config.guidance_scale, config.scheduler)
            reference_pair(adapter, latents)
            kept.append(latents)

        row.seconds.append(clocked(device, pair))
    row.memory = max(row.memory, memory.peak)
    longer = results.row(results.sampling, _extrapolated(name, config.steps), "fp32")
    longer.seconds = [row.per_unit + 2 * (STEPS - config.steps) * sorted(row.pass_seconds)[len(row.pass_seconds) // 2]]
    return kept[0]


def _measure_form(results: Results, subject: Subject, form: Form, plan: Comparison) -> list[Candidate]:
    """Time a pass and a job; returns the job's candidates."""
    adapter = subject.adapter
    device = adapter.model.device.type
    row = results.row(results.sampling, form.name, form.config.precision, form.against)
    with peak_memory(device) as memory:
        normals = subject.normals if form.config.anchored else []
        prepared = prepared_form(adapter, form.config, form.change, normals)
        run = one_pass(prepared.adapter, form.config)
        kind = form.change if form.change in (unmerged, unfolded) else None
        if kind not in plan.operations:
            plan.operations[kind] = count_operations(one_pass(prepared.adapter, replace(form.config, batch=1)))
        row.pass_rows, row.operations = rows_of_pass(form.config), plan.operations[kind] * form.config.batch
        row.pass_seconds += timed(device, run, plan.passes)
        made: list[Candidate] = []

        def job() -> None:
            made.extend(sample_pairs(prepared, 0, form.pairs))

        row.seconds.append(clocked(device, job) / form.pairs)
    row.memory = max(row.memory, memory.peak)
    return made


def prepared_form(
    adapter: Adapter, config: SamplingConfig, change: Change | None, normals: Sequence[NormalImage] = ()
) -> Sampler:
    """The adapter made ready for sampling, with an optimisation taken back."""
    prepared = prepare_sampling(adapter, config, normals=normals)
    if change is not None and isinstance(prepared.adapter.model.denoiser, MergedDenoiser):
        change(prepared.adapter.model.denoiser, adapter.model.denoiser)
    return prepared


def rows_of_pass(config: SamplingConfig) -> int:
    """Both branches of every pair, with guidance once more."""
    return config.batch * (4 if config.guidance_scale != 1 else 2)


@torch.no_grad()
def one_pass(prepared: Adapter, config: SamplingConfig) -> Callable[[], Tensor]:
    """One step's pass through the denoiser with a full batch."""
    model = prepared.model
    pairs = rows_of_pass(config) // 2
    latents = pair_noise(prepared, config)[:, None].expand(-1, pairs, -1, -1, -1).contiguous()
    text = model.prompt_embeddings().expand(-1, pairs, -1, -1)
    timestep = torch.tensor(TIMESTEP, device=model.device)

    @torch.no_grad()
    def run() -> Tensor:
        out: Tensor = model.denoiser(latents, timestep, text)
        return out

    return run


def pair_noise(adapter: Adapter, config: SamplingConfig) -> Tensor:
    """The noise of the first pair, `(2, C, h, w)`."""
    model = adapter.model
    cells = model.config.resolution // model.base.factor
    noise = draw_noise(pair_seed(config.seed, 0), (2, model.base.latent_channels, cells, cells))
    return noise.to(model.device)


def _agreements(adapter: Adapter, latents: Tensor, ours: Candidate, form: Form) -> Iterator[Agreement]:
    """Of the first pair's pictures; on a GPU nothing is promised of them, where either form rounds in its own way."""
    theirs = reference_pair(adapter, latents)
    exact = form.config.precision == "fp32" and adapter.model.device.type == "cpu"
    for name, image, other in (("image", ours.image, theirs.image), ("part", ours.part, theirs.part)):
        difference = np.abs(image.astype(int) - other)
        what = f"{form.config.precision}, {form.config.steps} steps, {name}, grey levels"
        yield Agreement(f"{what}, greatest", float(difference.max()), LEVELS if exact else None)
        yield Agreement(f"{what}, mean", float(difference.mean()), TRUE_LEVELS if exact else None)


@torch.no_grad()
def pass_agreement(adapter: Adapter, config: SamplingConfig) -> Agreement:
    """Both forms' prediction for one pair in fp32, without tensor cores' shortened mantissas."""
    full = replace(config, precision="fp32", batch=1, guidance_scale=1.0)
    with torch.backends.cudnn.flags(allow_tf32=False):
        ours = one_pass(prepared_form(adapter, full, None).adapter, full)()
        theirs = reference_pass(adapter, ReferenceDenoiser(adapter.model).eval(), full)()
    return Agreement("fp32, prediction of a pass, relative", float((ours - theirs).norm() / theirs.norm()), PREDICTION)


def reference_pass(adapter: Adapter, denoiser: ReferenceDenoiser, config: SamplingConfig) -> Callable[[], Tensor]:
    """One pass of the reference form, with the prompts or without."""
    noise, text = pair_noise(adapter, config), adapter.model.prompt_embeddings()
    return partial(denoiser, noise[:, None], torch.tensor(TIMESTEP, device=noise.device), text)
