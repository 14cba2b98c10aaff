"""Which forms of sampling are compared: the reference form, ours, and ours with each optimisation taken back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from bench.variants import Change, channels_first, guided_apart, plain_group_norm, unfolded, unmerged
from model.dualanodiff.adapter import DualAnoDiffAdapter
from model.dualanodiff.reference import SCHEDULER, STEPS
from model.dualanodiff.sampling.config import resolve_sampling
from model.dualanodiff.sampling.cuda_graphs import Compiler
from service.core.options.dualanodiff import SamplingConfig

PASSES = 3
"""Timed passes per round; one where a pass takes minutes."""

Run = Literal["plain", "recorded", "compiled"]
"""How passes are run: as they are written, replayed from a CUDA graph, or compiled and replayed."""


@dataclass(frozen=True, slots=True)
class Form:
    """One of the forms that are compared.

    Attributes:
        name: its row in the table.
        config: how it samples.
        against: name of the row that its speed is divided by.
        run: how its passes are run; on a CPU always "plain".
        change: what is taken back; None for nothing.
        compared: whether its first pair is that of the reference form, to within rounding.
    """

    name: str
    config: SamplingConfig
    against: str
    run: Run = "plain"
    change: Change | None = None
    compared: bool = False


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is compared with what.

    Attributes:
        equal: of the comparison at equal steps: the reference form's scheduler, without anchoring.
        reference: name of the reference form's row.
        forms: ours, in the order of importance.
        passes: timed per round, after one that is not.
        compiler: of all forms whose passes are compiled.
        operations: of a pass with one pair: what is taken back → number. Counting takes longer than a pass.
    """

    equal: SamplingConfig
    reference: str
    forms: list[Form]
    passes: int
    compiler: Compiler
    operations: dict[Change | None, int] = field(default_factory=dict)


def compare(adapter: DualAnoDiffAdapter, *, steps: int, batch: int, brief: bool) -> Comparison:
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
    forms = [form for form in _forms(adapter, equal, reference) if form.compared or not brief]
    return Comparison(equal, reference, forms, 1 if brief else PASSES, Compiler())


def _forms(adapter: DualAnoDiffAdapter, equal: SamplingConfig, reference: str) -> Iterator[Form]:
    """What is taken back is taken from the default precision at equal steps, and where compiling takes minutes, from
    passes that are recorded only.
    """
    gpu = adapter.model.device.type == "cuda"
    best: Run = "compiled" if gpu else "plain"
    usual: Run = "recorded" if gpu else "plain"
    ours = f"ours, {equal.steps} steps, {equal.precision}"
    full = replace(equal, precision="fp32")
    default = resolve_sampling(adapter.model.base, {"batch": equal.batch}, has_normals=True)
    whole = Form(ours, equal, reference, best, compared=True)
    over = f"{ours}, not compiled" if gpu else ours
    if gpu:
        # First what is sure to be there in time.
        yield Form(over, equal, reference, usual, compared=True)
    yield whole
    if equal.precision != "fp32":
        yield Form(f"ours, {equal.steps} steps, fp32", full, reference, usual, compared=True)
    yield Form(_named(default), default, extrapolated(reference, equal.steps), best)
    yield Form("… one pair at a time", replace(equal, batch=1), over, usual)
    if gpu:
        yield Form("… not recorded", equal, over, "plain")
    changes: dict[str, Change] = {
        "… guidance in a pass of its own": guided_apart,
        "… LoRAs beside the weights": unmerged,
        "… SAIM written out": unfolded,
        "… channels first": channels_first,
    }
    if not gpu and equal.precision == "bf16":
        changes["… group norm in bf16"] = plain_group_norm
    for name, change in changes.items():
        yield Form(name, equal, over, usual, change)


def _named(default: SamplingConfig) -> str:
    start = f", anchored, from {default.sketch_strength or default.strength:g} of the noise" if default.anchored else ""
    return f"ours, defaults: {default.steps} steps{start}, {default.precision}"


def extrapolated(reference: str, steps: int) -> str:
    """Name of the row of the reference form's own number of steps."""
    return reference.replace(f"{steps} steps", f"{STEPS} steps (from its passes' time)")
