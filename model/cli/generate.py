"""`pairforge generate`: a dataset of accepted pairs from an adapter."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from model.adapter import Adapter, load_adapter, read_adapter_card
from model.base import Base, load_base
from model.cli.checks import (
    attempt,
    check_new_file,
    choose_device,
    chosen,
    load_normals,
    read_limits,
    require_space,
)
from model.cli.output import Output, duration
from model.export.dataset import FORMATS, DatasetSummary, check_formats
from model.generation import Tally
from model.masks import MaskMethod
from model.pipeline import MaskNetworks, load_mask_networks, make_dataset
from model.placement import NormalImage
from model.quality import QualityLimits
from model.sampling import SamplingConfig, resolve_sampling
from service.core.errors import UsageError

BYTES_PER_PIXEL = 2
"""Of a photograph as PNG, with its mask."""


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """What the user asked for; `options` that name a field of `SamplingConfig` are settings, None means not chosen."""

    adapter: Path
    target: Path
    num_pairs: int
    base: str | None = None
    normals: Path | None = None
    formats: str = ""
    limits: Path | None = None
    max_attempts: int | None = None
    object_net: Path | None = None
    device: str = "auto"
    force: bool = False
    options: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Generation:
    """A request that was checked, with all it needs loaded."""

    request: GenerateRequest
    adapter: Adapter
    config: SamplingConfig
    networks: MaskNetworks
    normals: list[NormalImage]
    formats: list[str]
    limits: QualityLimits | None
    tally: Tally = field(default_factory=Tally)


def generate(request: GenerateRequest, output: Output) -> None:
    """Check, generate, tell."""
    began = time.monotonic()
    generation = prepare(request)
    summary = perform(generation, output)
    seconds = round(time.monotonic() - began, 1)
    counts = generation.tally.as_dict()
    facts = {"dataset": str(summary.path), "num_pairs": summary.num_pairs, "size_bytes": summary.size_bytes}
    output.result(
        {**facts, "formats": list(summary.formats), "counts": counts, "seconds": seconds},
        f"dataset: {summary.path} ({summary.num_pairs} pairs, {summary.size_bytes / 1e6:.1f} MB, "
        f"{generation.tally.attempts} candidates in {duration(seconds)})\n"
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
    problems: list[str] = []
    formats = attempt(problems, lambda: parse_formats(request.formats)) or []
    limits = attempt(problems, lambda: read_limits(request.limits))
    normals = attempt(problems, lambda: load_normals(request.normals)) or []
    attempt(problems, lambda: check_new_file(request.target, force=request.force))
    problems += _counts(request)
    method = attempt(problems, lambda: _mask_method(request.options))
    device = attempt(problems, lambda: choose_device(request.device)) or "cpu"
    adapter = config = networks = None
    base = loaded or attempt(problems, lambda: _base_of(request, device), f"adapter {request.adapter}")
    if base is not None:
        adapter = attempt(problems, lambda: load_adapter(request.adapter, base), f"adapter {request.adapter}")
        networks = attempt(problems, lambda: load_mask_networks(base, None, request.object_net))
        options = {**chosen(request.options or {}, SamplingConfig), "mask_method": method}
        config = attempt(problems, lambda: resolve_sampling(base, options, has_normals=request.normals is not None))
    if adapter is not None and networks is not None and config is not None:
        problems += _unmet(request, adapter, networks, config)
    if problems or adapter is None or config is None or networks is None:
        raise UsageError(problems, "the dataset cannot be generated")
    require_space(request.target, _estimate(request.num_pairs, adapter, normals, formats))
    return Generation(request, adapter, config, networks, normals, formats, limits)


def perform(generation: Generation, output: Output) -> DatasetSummary:
    """Generate and write the zip."""
    request = generation.request
    request.target.parent.mkdir(parents=True, exist_ok=True)
    summary: DatasetSummary | None = None
    for item in make_dataset(
        generation.adapter,
        generation.config,
        request.num_pairs,
        request.target,
        networks=generation.networks,
        normals=generation.normals,
        formats=generation.formats,
        limits=generation.limits,
        max_attempts=request.max_attempts,
        tally=generation.tally,
    ):
        if isinstance(item, DatasetSummary):
            summary = item
        else:
            output.progress(item)
    assert summary is not None
    return summary


def parse_formats(text: str) -> list[str]:
    """`mvtec,coco` → names; `all` is every one there is."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if names == ["all"]:
        return list(FORMATS)
    check_formats(names)
    return names


def _base_of(request: GenerateRequest, device: str) -> Base:
    card = read_adapter_card(request.adapter)
    return load_base(request.base or str(card["base"]["name"]), device=device)


def _mask_method(options: Mapping[str, Any] | None) -> MaskMethod | None:
    name = (options or {}).get("mask_method")
    if name is None:
        return None
    if name not in list(MaskMethod):
        raise UsageError(f"mask method {name!r} does not exist: choose from {', '.join(MaskMethod)}")
    return MaskMethod(name)


def _counts(request: GenerateRequest) -> list[str]:
    problems = []
    if request.num_pairs < 1:
        problems.append(f"num-pairs is {request.num_pairs}; it must be at least 1")
    elif request.max_attempts is not None and request.max_attempts < request.num_pairs:
        problems.append(f"max-attempts is {request.max_attempts}; {request.num_pairs} pairs need at least as many")
    return problems


def _unmet(request: GenerateRequest, adapter: Adapter, networks: MaskNetworks, config: SamplingConfig) -> list[str]:
    """What adapter and options need from one another and do not get."""
    problems = []
    if config.mask_method is MaskMethod.U2NET and adapter.mask_net is None:
        problems.append("mask method u2net needs a mask network, and the adapter has none: use threshold or attention")
    if adapter.model.config.bcm and request.normals is None:
        problems.append(
            "the adapter was trained with bcm, whose backgrounds come from defect-free images: give --normals"
        )
    if adapter.model.config.bcm and networks.object is None:
        problems.append("the adapter was trained with bcm, which needs a network that finds objects: give --object-net")
    return problems


def _estimate(num_pairs: int, adapter: Adapter, normals: Sequence[NormalImage], formats: Sequence[str]) -> int:
    """Bytes of the dataset, roughly."""
    pixels = sum(normal.image.shape[0] * normal.image.shape[1] for normal in normals)
    each = pixels // len(normals) if normals else adapter.model.config.resolution**2
    return BYTES_PER_PIXEL * (num_pairs * each + (pixels if formats else 0)) * (1 + len(formats))


def describe(generation: Generation) -> dict[str, Any]:
    """The settings in use, as JSON."""
    return asdict(generation.config)
