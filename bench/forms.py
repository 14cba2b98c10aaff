"""Lists the forms of sampling to compare: the reference form, ours, and ours without each optimisation."""

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
"""Timed passes per round; only one if a pass takes minutes."""

Run = Literal["plain", "captured", "compiled"]
"""How passes run: eagerly, replayed from a CUDA graph, or compiled and replayed."""


@dataclass(frozen=True, slots=True)
class Form:
    """One of the forms to compare.

    Attributes:
        name: name of its row in the table.
        config: sampling settings.
        against: name of the row that its speed is divided by.
        run: how its passes run; on a CPU always "plain".
        change: removes an optimisation; None to remove none.
        compared: whether its first pair must equal the reference form's, up to rounding.
    """

    name: str
    config: SamplingConfig
    against: str
    run: Run = "plain"
    change: Change | None = None
    compared: bool = False


@dataclass(frozen=True, slots=True)
class Comparison:
    """The forms to compare, and how.

    Attributes:
        equal: settings of the comparison at equal steps: the reference form's scheduler, without anchoring.
        reference: name of the reference form's row.
        forms: our forms, in the order of importance.
        passes: number of timed passes per round, after one warm-up pass.
        compiler: compiles the passes of all compiled forms.
        operations: removed optimisation → operations of a pass with one pair. Counting takes longer than a pass.
    """

    equal: SamplingConfig
    reference: str
    forms: list[Form]
    passes: int
    compiler: Compiler
    operations: dict[Change | None, int] = field(default_factory=dict)


def compare(adapter: DualAnoDiffAdapter, *, steps: int, batch: int, brief: bool) -> Comparison:
    """Choose the forms for an adapter.

    Args:
        steps: steps of the comparison at equal steps.
        batch: pairs per batch of our forms.
        brief: whether to compare only at equal steps, with all optimisations.
    """
    base = adapter.model.base
    chosen = {"scheduler": SCHEDULER, "steps": steps, "batch": batch}
    guidance = resolve_sampling(base, {}, has_normals=True).guidance_scale
    equal = resolve_sampling(base, {**chosen, "guidance_scale": guidance}, has_normals=False)
    reference = f"reference form, {steps} steps"
    forms = [form for form in _forms(adapter, equal, reference) if form.compared or not brief]
    return Comparison(equal, reference, forms, 1 if brief else PASSES, Compiler())


def _forms(adapter: DualAnoDiffAdapter, equal: SamplingConfig, reference: str) -> Iterator[Form]:
    """Yield our forms; optimisations are removed from the form in default precision at equal steps.

    If compiling takes minutes, that form is only captured.
    """
    gpu = adapter.model.device.type == "cuda"
    best: Run = "compiled" if gpu else "plain"
    usual: Run = "captured" if gpu else "plain"
    ours = f"ours, {equal.steps} steps, {equal.precision}"
    full = replace(equal, precision="fp32")
    default = resolve_sampling(adapter.model.base, {"batch": equal.batch}, has_normals=True)
    whole = Form(ours, equal, reference, best, compared=True)
    over = f"{ours}, not compiled" if gpu else ours
    if gpu:
        # First the form that is sure to fit into the time.
        yield Form(over, equal, reference, usual, compared=True)
    yield whole
    if equal.precision != "fp32":
        yield Form(f"ours, {equal.steps} steps, fp32", full, reference, usual, compared=True)
    yield Form(_named(default), default, extrapolated(reference, equal.steps), best)
    yield Form("… one pair at a time", replace(equal, batch=1), over, usual)
    if gpu:
        yield Form("… not captured", equal, over, "plain")
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
    """Return the name of the row for the reference form's own number of steps."""
    return reference.replace(f"{steps} steps", f"{STEPS} steps (from its passes' time)")
