"""Measures quality by number of steps: how far pairs of few denoising steps are from those of many, with equal noise.

Decoded images and parts are compared by mean absolute grey levels inside the generated window, and masks by
intersection over union. For scale, the table starts with the distance of two different pairs. Acceptance is that of the
quality gate with its default limits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory

import numpy as np

from bench.machine import MODEL, machine
from bench.model_report import grid
from bench.sizes import samples
from model.adapter_card import read_adapter_card
from model.cli.checks import load_normals
from model.data.crops import resize_image, resize_mask
from model.data.placement import NormalImage
from model.diffusion.base import load_base, silence_libraries
from model.dualanodiff.adapter import DualAnoDiffAdapter, load_adapter
from model.dualanodiff.sampling.config import resolve_sampling
from model.dualanodiff.sampling.sampler import prepare_sampling, sample_pairs
from model.generation.counts import Counts
from model.generation.filter import CandidateFilter
from model.generation.request import GenerationRequest
from model.masks.extraction import iou
from model.masks.networks import load_mask_networks, load_object_net
from model.masks.u2net import U2Net
from model.method import TrainingRequest
from model.methods import METHODS
from model.pretrain.procedural.samples import DEFECT, OBJECT
from model.types import Candidate, ImageArray
from service.core.options.common import Scheduler
from service.core.options.dualanodiff import SamplingConfig
from service.core.options.methods import DEFAULT_METHOD
from service.core.strict_json import to_json

CONVERGED = 200
"""Steps of DPM-Solver++ after which results have converged."""

VIEW = 64
"""Side to which generated windows are resized for comparison, pixels."""

STEPS = (5, 8, 10, 15, 20, 25, 50)

SOLVERS: tuple[Scheduler, ...] = ("dpmsolver++", "DDIMScheduler")


@dataclass(frozen=True, slots=True)
class Distance:
    """Distance of one setting's candidates from the converged ones.

    Attributes:
        start: what sampling starts from.
        passes: denoising steps actually made; an anchored start skips the first ones.
        image, part: mean absolute difference in grey levels.
        overlap: mean intersection over union of the masks.
        accepted: share of candidates that pass the quality gate.
    """

    start: str
    solver: str
    steps: int
    passes: int
    image: float
    part: float
    overlap: float
    accepted: float


def run_steps(
    folder: Path | None,
    normals: Path | None,
    count: int,
    loads: tuple[float, float, float],
    into: Path,
    report: Callable[[str], None],
) -> str:
    """Measure an adapter, given or trained on the samples; returns the table.

    Args:
        folder, normals: the adapter and defect-free photographs; None for the shipped samples.
        count: candidates of every setting.
    """
    silence_libraries()
    images = samples()[1] if normals is None else load_normals(normals)[0]
    on = machine(loads, MODEL)
    with TemporaryDirectory(prefix="pairforge-bench-") as place:
        if folder is None:
            report("training an adapter on the samples")
            folder = _train_on_samples(Path(place))
        base = load_base(str(read_adapter_card(folder)["base"]["name"]))
        adapter, object_net = load_adapter(folder, base), load_object_net(base)
        found = measure_steps(
            adapter, object_net, images, count, report, lambda distances: write_steps(distances, count, on, into)
        )
    return write_steps(found, count, on, into)


def _train_on_samples(place: Path) -> Path:
    """Train an adapter with the shipped base's recommended settings."""
    base = load_base("mini")
    target = place / "adapter"
    method = METHODS[DEFAULT_METHOD]
    request = TrainingRequest(
        base, samples()[0], method.resolve_training(base, {"seed": 1}), OBJECT, DEFECT, load_mask_networks(base)
    )
    training = method.train(request, target, place / "work")
    for _ in training:
        pass
    return target


def measure_steps(
    adapter: DualAnoDiffAdapter,
    object_net: U2Net | None,
    normals: Sequence[NormalImage],
    count: int,
    report: Callable[[str], None],
    save: Callable[[list[Distance]], object],
) -> list[Distance]:
    """Measure all starts, solvers and numbers of steps.

    Args:
        count: candidates of every setting.
        save: called with all results so far, after every setting.
    """
    found: list[Distance] = []
    for start, config in _starts(adapter, count).items():
        given = normals if config.anchored else ()
        prepared = prepare_sampling(adapter, config, normals=given)

        report(f"{start}: {CONVERGED} steps")
        most = replace(config, steps=CONVERGED)
        converged = list(sample_pairs(replace(prepared, config=most), 0, count))
        accepted = _share(adapter, most, converged, given, object_net)
        others = [*converged[1:], converged[0]]
        found.append(_distance(start, "another pair", most, others, converged, accepted))
        for steps in STEPS:
            for solver in SOLVERS:
                report(f"{start}: {solver}, {steps} steps")
                chosen = replace(config, steps=steps, scheduler=solver)
                candidates = list(sample_pairs(replace(prepared, config=chosen), 0, count))
                accepted = _share(adapter, chosen, candidates, given, object_net)
                found.append(_distance(start, solver, chosen, candidates, converged, accepted))
                save(found)
    return found


def _starts(adapter: DualAnoDiffAdapter, count: int) -> dict[str, SamplingConfig]:
    """Return settings: from noise alone, and on normal images as the base's card recommends."""
    base = adapter.model.base
    has_mask_net = adapter.mask_net is not None
    anchored = resolve_sampling(base, {"batch": count}, has_normals=True, has_mask_net=has_mask_net)
    free = resolve_sampling(base, {"batch": count, "anchored": False}, has_normals=False, has_mask_net=has_mask_net)
    return {"pure noise": free, f"anchored, from {_strength(anchored):g} of the noise": anchored}


def _strength(config: SamplingConfig) -> float:
    return (config.sketch_strength or config.strength) if config.anchored else 1.0


def _share(
    adapter: DualAnoDiffAdapter,
    config: SamplingConfig,
    candidates: Sequence[Candidate],
    normals: Sequence[NormalImage],
    object_net: U2Net | None,
) -> float:
    counts = Counts()
    request = GenerationRequest(adapter, config, len(candidates), normals=normals, object_net=object_net)
    candidate_filter = CandidateFilter(request)
    for candidate in candidates:
        counts.count(candidate_filter.verdict(replace(candidate, scores={})))
    return counts.accepted / counts.attempts


def _distance(
    start: str,
    solver: str,
    config: SamplingConfig,
    candidates: Sequence[Candidate],
    converged: Sequence[Candidate],
    accepted: float,
) -> Distance:
    views = [(_view(one), _view(other)) for one, other in zip(candidates, converged, strict=True)]
    return Distance(
        start=start,
        solver=solver,
        steps=config.steps,
        passes=max(1, round(config.steps * _strength(config))),
        image=mean(levels_apart(one.image, other.image) for one, other in views),
        part=mean(
            levels_apart(one.part, other.part)
            for one, other in views
            if one.part is not None and other.part is not None
        ),
        overlap=mean(iou(one.mask, other.mask) for one, other in views),
        accepted=accepted,
    )


def _view(candidate: Candidate) -> Candidate:
    """Cut the generated window, and resize it to the common size."""
    height, width = candidate.mask.shape
    left, top, right, bottom = candidate.window or (0, 0, width, height)
    inside = np.s_[top:bottom, left:right]
    return replace(
        candidate,
        image=resize_image(candidate.image[inside], VIEW),
        part=resize_image(candidate.part[inside], VIEW) if candidate.part is not None else None,
        mask=resize_mask(candidate.mask[inside], VIEW),
    )


def levels_apart(one: ImageArray, other: ImageArray) -> float:
    """Return the mean absolute difference of two images in grey levels."""
    return float(np.abs(one.astype(int) - other).mean())


def steps_table(found: Sequence[Distance], count: int) -> str:
    """Format the distances as a Markdown table."""
    head = ("start", "solver", "steps", "passes", "image, levels", "part, levels", "mask IoU", "accepted")
    rows = [
        (
            each.start,
            each.solver,
            str(each.steps),
            str(each.passes),
            f"{each.image:.2f}",
            f"{each.part:.2f}",
            f"{each.overlap:.3f}",
            f"{100 * each.accepted:.0f} %",
        )
        for each in found
    ]
    return f"Against {CONVERGED} steps of DPM-Solver++, {count} pairs each.\n\n{grid([head, *rows])}\n"


def write_steps(found: Sequence[Distance], count: int, machine: str, folder: Path) -> str:
    """Write `steps.md` and `steps.json`; returns the Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    text = f"{steps_table(found, count)}\n{machine}\n"
    facts = {"machine": machine, "candidates": count, "distances": [asdict(each) for each in found]}
    (folder / "steps.md").write_text(text, encoding="utf-8")
    (folder / "steps.json").write_text(to_json(facts, indent=1), encoding="utf-8")
    return text
