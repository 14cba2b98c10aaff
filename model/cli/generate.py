"""`pairforge generate`: a dataset of accepted pairs from an adapter."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model.cli.checks import (
    Problems,
    check_new_file,
    choose_device,
    load_normals,
    open_base,
    require_space,
)
from model.cli.output import PREPARED, Output, duration
from model.data.placement import NormalImage
from model.diffusion.base import Base
from model.dualanodiff.adapter import Adapter, load_adapter, read_adapter_card
from model.dualanodiff.sampling.config import resolve_sampling
from model.export.dataset import FORMATS, DatasetSummary, check_formats
from model.generation.filter import Counts
from model.masks.u2net import U2Net
from model.pipeline import load_object_net, make_dataset
from service.core.errors import UsageError
from service.core.limits import read_limits
from service.core.options.common import MaskMethod
from service.core.options.declaration import choose
from service.core.options.dualanodiff import SamplingConfig
from service.core.options.quality import QualityLimits
from service.core.uploads.reading import chosen_reading

BYTES_PER_PIXEL = 2
"""Of a photograph as PNG, with its mask."""


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """What the user asked for; `options` are the sampling options that were chosen."""

    adapter: Path
    target: Path
    num_pairs: int
    base: str | None = None
    normals: Path | None = None
    formats: str = ""
    limits: Path | None = None
    max_attempts: int | None = None
    object_net: Path | None = None
    brightness: str | None = None
    device: str = "auto"
    force: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a request names that needs neither adapter nor base, and notes on it."""

    normals: list[NormalImage]
    notes: list[str]
    formats: list[str]
    limits: QualityLimits


@dataclass(frozen=True, slots=True)
class Generation:
    """A request that was checked, with all it needs loaded."""

    request: GenerateRequest
    adapter: Adapter
    config: SamplingConfig
    object_net: U2Net | None
    inputs: Inputs
    counts: Counts = field(default_factory=Counts)


def generate(request: GenerateRequest, output: Output) -> None:
    """Check, generate, tell."""
    began = time.monotonic()
    generation = prepare(request)
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


def prepare(request: GenerateRequest, loaded: Base | None = None) -> Generation:
    """Load all that generation needs.

    Args:
        loaded: the adapter's base, where it is loaded already.

    Raises:
        UsageError: listing everything that is wrong.
        TransientError: there is no room for the dataset.
    """
    problems = Problems()
    inputs = problems.attempt(read_inputs, request)
    device = problems.attempt(choose_device, request.device) or "cpu"
    adapter = config = object_net = None
    base = loaded or problems.attempt_on(f"adapter {request.adapter}", _base_of, request, device)
    if base is not None:
        adapter = problems.attempt_on(f"adapter {request.adapter}", load_adapter, request.adapter, base)
        object_net = problems.attempt(load_object_net, base, request.object_net)
        config = problems.attempt(
            resolve_sampling,
            base,
            request.options,
            has_normals=request.normals is not None,
            has_mask_net=adapter is None or adapter.mask_net is not None,
            bcm=adapter is not None and adapter.model.config.bcm,
        )
    if adapter is not None and config is not None:
        problems.found += _unmet(request, adapter, object_net, config)
    if problems.found or inputs is None or adapter is None or config is None:
        raise UsageError(problems.found, "the dataset cannot be generated")
    require_space(request.target, _estimate(request.num_pairs, adapter, inputs))
    return Generation(request, adapter, config, object_net, inputs)


def read_inputs(request: GenerateRequest) -> Inputs:
    """Check and read all that needs neither adapter nor base.

    Raises:
        UsageError: listing everything that is wrong.
    """
    problems = Problems()
    formats = problems.attempt(parse_formats, request.formats)
    limits = problems.attempt(read_limits, request.limits) if request.limits is not None else None
    reading = problems.attempt(chosen_reading, request.brightness, None)
    found = problems.attempt(load_normals, request.normals, reading)
    problems.attempt(check_new_file, request.target, force=request.force)
    problems.attempt(choose, SamplingConfig, "sampling options", request.options)
    if request.num_pairs < 1:
        problems.found.append(f"num-pairs is {request.num_pairs}; it must be at least 1")
    elif request.max_attempts is not None and request.max_attempts < request.num_pairs:
        problems.found.append(
            f"max-attempts is {request.max_attempts}; {request.num_pairs} pairs need at least as many"
        )
    if problems.found or formats is None or found is None:
        raise UsageError(problems.found)
    return Inputs(*found, formats, QualityLimits(**limits or {}))


def perform(generation: Generation, output: Output) -> DatasetSummary:
    """Generate and write the zip."""
    request = generation.request
    for note in generation.inputs.notes:
        output.note(note)
    request.target.parent.mkdir(parents=True, exist_ok=True)
    for item in make_dataset(
        generation.adapter,
        generation.config,
        request.num_pairs,
        request.target,
        object_net=generation.object_net,
        normals=generation.inputs.normals,
        formats=generation.inputs.formats,
        limits=generation.inputs.limits,
        max_attempts=request.max_attempts,
        counts=generation.counts,
        force=request.force,
    ):
        if isinstance(item, DatasetSummary):
            return item
        output.progress(item)
    raise AssertionError("a dataset ends with its summary")


def parse_formats(text: str) -> list[str]:
    """`mvtec,coco` → names; `all` is every one there is."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    check_formats([name for name in names if name != "all"])
    return list(FORMATS) if "all" in names else names


def _base_of(request: GenerateRequest, device: str) -> Base:
    card = read_adapter_card(request.adapter)
    return open_base(request.base or str(card["base"]["name"]), device)


def _unmet(request: GenerateRequest, adapter: Adapter, object_net: U2Net | None, config: SamplingConfig) -> list[str]:
    """What adapter and options need from one another and do not get."""
    problems = []
    if config.mask_method is MaskMethod.U2NET and adapter.mask_net is None:
        problems.append("mask method u2net needs a mask network, and the adapter has none: use threshold or attention")
    if adapter.model.config.bcm and request.normals is None:
        problems.append(
            "the adapter was trained with bcm, whose backgrounds come from defect-free images: give --normals"
        )
    if adapter.model.config.bcm and object_net is None and request.object_net is None:
        problems.append("the adapter was trained with bcm, which needs a network that finds objects: give --object-net")
    return problems


def _estimate(num_pairs: int, adapter: Adapter, inputs: Inputs) -> int:
    """Bytes of the dataset and of the pairs kept until it is complete, roughly."""
    pixels = sum(normal.image.shape[0] * normal.image.shape[1] for normal in inputs.normals)
    each = pixels // len(inputs.normals) if inputs.normals else adapter.model.config.resolution**2
    copied = pixels if inputs.formats else 0
    kept = num_pairs * each
    return BYTES_PER_PIXEL * (kept + (kept + copied) * (1 + len(inputs.formats)))
