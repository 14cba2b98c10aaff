"""`pairforge generate`: makes a dataset of accepted pairs with an adapter."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from model.adapter_card import read_adapter_card, types_of
from model.cli.checks import (
    Problems,
    check_new_file,
    choose_device,
    load_normals,
    open_base,
    require_space,
)
from model.cli.output import PREPARED, Output, duration
from model.cli.places import read_places
from model.data.placement import NormalImage
from model.data.plan import plan_pairs
from model.export.dataset import FORMATS, DatasetSummary, check_formats
from model.generation.counts import Counts
from model.generation.dataset import make_dataset
from model.generation.request import GenerationRequest
from model.masks.networks import load_object_net
from model.methods import METHODS, load_adapter
from service.cli.options import parse_counts
from service.core.errors import UsageError
from service.core.limits import read_limits
from service.core.options.declaration import choose
from service.core.options.learned import WHOLE
from service.core.options.methods import METHOD_OPTIONS
from service.core.options.quality import QualityLimits
from service.core.places import Places, refuse_places
from service.core.uploads.reading import Range, Reading, chosen_reading

BYTES_PER_PIXEL = 2
"""Bytes per pixel of a photograph as PNG, with its mask."""


@dataclass(frozen=True, slots=True)
class GenerateCommand:
    """What the user asked for; `options` are the sampling options that were chosen."""

    adapter: Path
    target: Path
    num_pairs: int | None
    base: str | None = None
    normals: Path | None = None
    formats: str = ""
    limits: Path | None = None
    max_attempts: int | None = None
    object_net: Path | None = None
    place: Path | None = None
    allowed: Path | None = None
    forbidden: Path | None = None
    defects: str | None = None
    brightness: str | None = None
    device: str = "auto"
    force: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Inputs:
    """Checked inputs that need neither adapter nor base, and notes on them."""

    normals: list[NormalImage]
    places: Places
    notes: list[str]
    num_pairs: int
    defects: dict[str, int] | None
    formats: list[str]
    limits: QualityLimits


@dataclass(frozen=True, slots=True)
class Generation:
    """A checked command, with everything it needs loaded."""

    command: GenerateCommand
    request: GenerationRequest
    notes: list[str]
    counts: Counts = field(default_factory=Counts)


def generate(command: GenerateCommand, output: Output) -> None:
    """Check the command, generate the dataset, and show the result."""
    began = time.monotonic()
    generation = prepare(command)
    output.progress(PREPARED)
    summary = perform(generation, output)
    seconds = round(time.monotonic() - began, 1)
    counts = generation.counts.as_dict()
    facts = {"dataset": str(summary.path), "num_pairs": summary.num_pairs, "size_bytes": summary.size_bytes}
    output.result(
        {**facts, "formats": list(summary.formats), "counts": counts, "seconds": seconds},
        f"dataset: {summary.path} ({summary.num_pairs} pairs, {summary.size_bytes / 1e6:.1f} MB, "
        f"{generation.counts.attempts} candidates in {duration(seconds)})\n"
        f"next:    pairforge inspect {summary.path}",
    )


def prepare(command: GenerateCommand) -> Generation:
    """Check the command and load everything that generation needs.

    Raises:
        UsageError: if the command is invalid; lists every problem.
        TransientError: if the disk has too little free space for the dataset.
    """
    problems = Problems()
    name = f"adapter {command.adapter}"
    card = problems.attempt_on(name, read_adapter_card, command.adapter)
    inputs = problems.attempt(read_inputs, command, card or {})
    device = problems.attempt(choose_device, command.device) or "cpu"
    adapter = settings = object_net = None
    base = None
    if card is not None:
        what = f"{card['method']} sampling options"
        problems.attempt(choose, METHOD_OPTIONS[card["method"]].sampling, what, command.options)
        base = problems.attempt_on(name, open_base, command.base or str(card["base"]["name"]), device)
    if card is not None and base is not None:
        adapter = problems.attempt_on(name, load_adapter, command.adapter, base)
        object_net = problems.attempt(load_object_net, base, command.object_net)
        method, has_normals = METHODS[card["method"]], command.normals is not None
        settings = problems.attempt(
            method.resolve_sampling, base, command.options, has_normals=has_normals, adapter=adapter
        )
        if adapter is not None and settings is not None:
            has_object_net = object_net is not None or command.object_net is not None
            problems.attempt(
                method.check_sampling, adapter, settings, has_normals=has_normals, has_object_net=has_object_net
            )
        if inputs is not None:
            asked = settings.as_dict() if settings is not None else {}
            problems.attempt(refuse_places, inputs.places, card["method"], asked)
            problems.attempt(plan_pairs, types_of(card), inputs.num_pairs, inputs.defects, inputs.places.masks)
        if inputs is not None and inputs.normals:
            box = getattr(settings, "region", WHOLE)
            full = inputs.limits.full_area
            problems.attempt(inputs.places.check, inputs.normals, types_of(card), box, full)
    if problems.found or inputs is None or adapter is None or settings is None:
        raise UsageError(problems.found, "the dataset cannot be generated")
    request = GenerationRequest(
        adapter,
        settings,
        inputs.num_pairs,
        normals=inputs.normals,
        object_net=object_net,
        limits=inputs.limits,
        formats=inputs.formats,
        max_attempts=command.max_attempts,
        places=inputs.places,
        defects=inputs.defects,
    )
    require_space(command.target, _estimate(request))
    return Generation(command, request, inputs.notes)


def read_inputs(command: GenerateCommand, card: Mapping[str, Any]) -> Inputs:
    """Check and read all inputs that need neither adapter nor base.

    Args:
        card: the adapter's; empty if it cannot be read.

    Raises:
        UsageError: if inputs are invalid; lists every problem.
    """
    problems = Problems()
    formats = problems.attempt(parse_formats, command.formats)
    limits = problems.attempt(read_limits, command.limits) if command.limits is not None else None
    reading = problems.attempt(chosen_reading, command.brightness, None) or Reading()
    learned = tuple(card["brightness"]) if card.get("brightness") else None
    found = problems.attempt(load_normals, command.normals, replace(reading, brightness=reading.brightness or learned))
    places = problems.attempt(read_places, command.place, command.allowed, command.forbidden, found[0] if found else ())
    problems.attempt(check_new_file, command.target, force=command.force)
    wanted = problems.attempt(wanted_pairs, command.num_pairs, command.defects)
    if wanted is not None and command.max_attempts is not None and command.max_attempts < wanted[0]:
        problems.found.append(f"max-attempts is {command.max_attempts}; it must be at least num-pairs, {wanted[0]}")
    if problems.found or formats is None or found is None or places is None or wanted is None:
        raise UsageError(problems.found)
    notes = found[1] + places[1]
    if found[0] and "brightness" in card:
        notes += _brightness_notes(learned, found[2])
    return Inputs(found[0], places[0], notes, *wanted, formats, QualityLimits(**limits or {}))


def _brightness_notes(learned: Range | None, used: Range | None) -> list[str]:
    """Tell how the good parts' brightness goes with that of the pictures that an adapter was trained on.

    Args:
        learned, used: values that became black and white in training and now; None for pictures of 8 bits.
    """
    before, now = (f"{span[0]}..{span[1]}" if span else None for span in (learned, used))
    if before == now:
        return [f"normal images are read at the brightness of the training, {now}"] if now else []
    if before is None:
        why = f"the adapter was trained on pictures of 8 bits, but normal images have more and are read at {now}"
    elif now is None:
        why = f"the adapter was trained on pictures of more than 8 bits, read at {before}, but normal images have 8"
    else:
        why = f"normal images are read at {now}, but the adapter was trained on pictures read at {before}"
    return [f"{why}: pairs are good only if the parts are equally bright in both"]


def wanted_pairs(num_pairs: int | None, defects: str | None) -> tuple[int, dict[str, int] | None]:
    """Return how many pairs are wanted, and of each defect type where that is said, as `crack=8,break=4`.

    Raises:
        UsageError: neither is given, one cannot be, or they contradict each other.
    """
    counts = None if defects is None else parse_counts(defects)
    if counts is None and num_pairs is None:
        raise UsageError("say how many pairs: --num-pairs 16, or of each type, --defects crack=8,break=4")
    total = num_pairs if counts is None else sum(counts.values())
    if num_pairs is not None and total != num_pairs:
        raise UsageError(f"num-pairs is {num_pairs}, but --defects asks for {total}: leave --num-pairs out")
    if total is None or total < 1:
        raise UsageError(f"num-pairs is {total}; it must be at least 1")
    return total, counts


def perform(generation: Generation, output: Output) -> DatasetSummary:
    """Generate the pairs and write the zip."""
    for note in generation.notes:
        output.note(note)
    command = generation.command
    command.target.parent.mkdir(parents=True, exist_ok=True)
    for item in make_dataset(generation.request, command.target, counts=generation.counts, force=command.force):
        if isinstance(item, DatasetSummary):
            return item
        output.progress(item)
    raise AssertionError("a dataset ends with its summary")


def parse_formats(text: str) -> list[str]:
    """Split `mvtec,coco` into names; `all` stands for every format."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    check_formats([name for name in names if name != "all"])
    return list(FORMATS) if "all" in names else names


def _estimate(request: GenerationRequest) -> int:
    """Estimate the bytes of the dataset and of the pairs kept until it is complete."""
    pixels = sum(normal.image.shape[0] * normal.image.shape[1] for normal in request.normals)
    each = pixels // len(request.normals) if request.normals else request.adapter.resolution**2
    copied = pixels if request.formats else 0
    kept = request.num_pairs * each
    return BYTES_PER_PIXEL * (kept + (kept + copied) * (1 + len(request.formats)))
