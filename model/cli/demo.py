"""`pairforge demo`: from a few pairs to a first dataset in minutes, with samples that come along or the user's own."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

from model.adapter import read_adapter_card
from model.cli import generate, train
from model.cli.checks import Problems
from model.cli.output import PREPARED, Output, duration
from model.pretrain.procedural.samples import DEFECT, OBJECT, SAMPLES
from service.core.errors import UsageError

DEMO_STEPS = 150
"""Enough for the embedded base to show the samples' defect, and few enough for two CPU cores."""

DEMO_MASK_STEPS = 60
"""Of adapting the mask network, and never more than the training itself has."""

DEMO_BATCH = 4
"""Pairs per sampling batch: the bar moves after each, so they are to be short."""


@dataclass(frozen=True, slots=True)
class DemoRequest:
    """What the user asked for; without `images` and `masks` the samples are taken."""

    target: Path
    base: str
    images: Path | None = None
    masks: Path | None = None
    normals: Path | None = None
    num_pairs: int = 16
    steps: int | None = None
    seed: int = 0
    limits: Path | None = None
    device: str = "auto"


def demo(request: DemoRequest, output: Output) -> None:
    """Train, generate, and say where everything is. An adapter that was trained on the same before is used again."""
    began = time.monotonic()
    own = request.images is not None or request.masks is not None
    generation = _generation(request, own=own)
    problems = Problems()
    problems.attempt(generate.read_inputs, generation)
    training = problems.attempt(_prepared, request, output, own=own)
    if problems.found or training is None:
        raise UsageError(problems.found, "the demo cannot run")
    output.progress(PREPARED)
    if _is_trained(training):
        output.note(f"using {training.request.target}, which was trained on the same before")
    else:
        train.perform(training, output)
    prepared = generate.prepare(generation, training.base)
    summary = generate.perform(prepared, output)
    preview = _extract_preview(summary.path)
    seconds = round(time.monotonic() - began, 1)
    facts = {"adapter": str(training.request.target), "dataset": str(summary.path), "preview": str(preview)}
    output.result(
        {**facts, "num_pairs": summary.num_pairs, "counts": prepared.tally.as_dict(), "seconds": seconds},
        f"{summary.num_pairs} pairs from {len(training.pairs)} in {duration(seconds)}:\n"
        f"  {summary.path}  images, masks, manifest\n"
        f"  {preview}  the real pairs, then the generated ones: look at this first\n"
        f"  {training.request.target}  the adapter\n"
        "next:\n"
        f"  pairforge inspect {summary.path}\n"
        f"  pairforge generate {training.request.target} --out more.zip --num-pairs 100 --formats mvtec,coco"
        f"{f' --normals {generation.normals}' if generation.normals else ''}\n"
        "  pairforge demo --images DIR --masks DIR --normals DIR --out mine    the same with your own pictures",
    )


def _prepared(request: DemoRequest, output: Output, *, own: bool) -> train.Training:
    if own and (request.images is None or request.masks is None):
        raise UsageError("--images and --masks belong together: give both folders, or neither for the samples")
    steps = DEMO_STEPS if request.steps is None else request.steps
    training = train.TrainRequest(
        images=request.images or SAMPLES / "images",
        masks=request.masks or SAMPLES / "masks",
        target=request.target / "adapter",
        base=request.base,
        object_name="product" if own else OBJECT,
        defect_name="defect" if own else DEFECT,
        device=request.device,
        force=True,
        options={"steps": steps, "mask_steps": min(DEMO_MASK_STEPS, steps), "seed": request.seed},
    )
    return train.prepare(training, output)


def _generation(request: DemoRequest, *, own: bool) -> generate.GenerateRequest:
    return generate.GenerateRequest(
        adapter=request.target / "adapter",
        target=request.target / "dataset.zip",
        num_pairs=request.num_pairs,
        normals=request.normals if own else request.normals or SAMPLES / "normals",
        limits=request.limits,
        device=request.device,
        force=True,
        options={"seed": request.seed, "batch": DEMO_BATCH},
    )


def _is_trained(training: train.Training) -> bool:
    target = training.request.target
    if not target.is_dir():
        return False
    card, now = read_adapter_card(target), training.record()
    return bool(
        card["base"]["sha256"] == now["base"]
        and card["config"] == training.config.as_dict()
        and all(card[name] == now[name] for name in ("object", "defect", "data"))
    )


def _extract_preview(dataset: Path) -> Path:
    preview = dataset.with_name("preview.png")
    aside = dataset.with_name(".preview.png.part")
    with ZipFile(dataset) as file:
        aside.write_bytes(file.read("preview.png"))
    aside.replace(preview)
    return preview
