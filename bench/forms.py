"""Lists the forms of sampling to compare: the reference form, ours, and ours without each optimisation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from bench.variants import Change, channels_first, guided_apart, plain_group_norm, unfolded, unmerged
from model.dualanodiff.adapter import DualAnoDiffAdapter
from model.dualanodiff.reference import SCHEDULER
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
        against: name of the row that its speed is divided by; it differs in one thing. Empty for none.
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
        equal: settings of the comparison at equal steps: the reference form's scheduler, without anchoring, in our
            default precision.
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


def compare(adapter: DualAnoDiffAdapter, *, steps: int, batch: int, brief: bool, headline: bool = False) -> Comparison:
    """Choose the forms for an adapter.

    Args:
        steps: steps of the comparison at equal steps.
        batch: pairs per batch of our forms.
        brief: whether to compare only at equal steps, with all optimisations.
        headline: whether to leave out the rows without an optimisation.
    """
    base = adapter.model.base
    chosen = {"scheduler": SCHEDULER, "steps": steps, "batch": batch}
    guidance = resolve_sampling(base, {}, has_normals=True).guidance_scale
    equal = resolve_sampling(base, {**chosen, "guidance_scale": guidance}, has_normals=False)
    reference = f"reference form, {steps} steps"
    forms = list(_forms(adapter, equal, reference))
    if not headline:
        forms += _without_each(adapter, equal)
    forms = [form for form in forms if form.compared or not brief]
    return Comparison(equal, reference, forms, 1 if brief else PASSES, Compiler())


def _forms(adapter: DualAnoDiffAdapter, equal: SamplingConfig, reference: str) -> Iterator[Form]:
    """Yield our forms with all optimisations: first at equal work, then in half precision, then by default.

    If compiling takes minutes, the form without it is measured too, first, because it is sure to fit into the time.
    """
    best, usual = _runs(adapter)
    full = replace(equal, precision="fp32")
    same = _at_equal_steps(full)
    yield Form(same, full, reference, usual, compared=True)
    if equal.batch > 1:
        yield Form(f"{same}, one pair at a time", replace(full, batch=1), reference, usual)
    if best != usual:
        yield Form(_plainest(adapter, equal), equal, same, usual, compared=True)
    if equal.precision != "fp32":
        yield Form(_at_equal_steps(equal), equal, same, best, compared=True)
    default = resolve_sampling(adapter.model.base, {"batch": equal.batch}, has_normals=True)
    yield Form(_named(default), default, "", best)


def _without_each(adapter: DualAnoDiffAdapter, equal: SamplingConfig) -> Iterator[Form]:
    """Yield our form at equal steps in default precision, without one optimisation at a time."""
    gpu = adapter.model.device.type == "cuda"
    over, usual = _plainest(adapter, equal), _runs(adapter)[1]
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


def _runs(adapter: DualAnoDiffAdapter) -> tuple[Run, Run]:
    """Return how passes run at best, and in rows of which there are too many to compile each."""
    return ("compiled", "captured") if adapter.model.device.type == "cuda" else ("plain", "plain")


def _at_equal_steps(config: SamplingConfig) -> str:
    return f"ours, {config.steps} steps, {config.precision}"


def _plainest(adapter: DualAnoDiffAdapter, equal: SamplingConfig) -> str:
    """Name the row of the form that is not compiled."""
    best, usual = _runs(adapter)
    return _at_equal_steps(equal) if best == usual else f"{_at_equal_steps(equal)}, not compiled"


def _named(default: SamplingConfig) -> str:
    start = f", anchored, from {default.sketch_strength or default.strength:g} of the noise" if default.anchored else ""
    return f"ours, defaults: {default.steps} steps{start}, {default.precision}"
