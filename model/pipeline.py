"""The two jobs as plain functions, for the command line and for workers alike: train an adapter, make a dataset."""

from __future__ import annotations

import copy
import os
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from model.adapter import Adapter, make_card, make_references, save_adapter
from model.base import Base
from model.config import TrainingConfig
from model.export.dataset import DatasetSummary, Provenance, check_formats, write_dataset
from model.generation import Tally, generate_pairs
from model.network import build_pair_model
from model.placement import NormalImage
from model.progress import Progress
from model.quality import QualityLimits
from model.sampling import SamplingConfig
from model.training import train
from model.types import Candidate, Pair
from model.u2net import U2Net, load_u2net
from service.core.errors import UsageError


@dataclass(frozen=True, slots=True)
class MaskNetworks:
    """The two U²-Nets, each None where there is none: `part` finds defects on parts, `object` finds products."""

    part: U2Net | None
    object: U2Net | None


def load_mask_networks(base: Base, part: Path | None = None, object_: Path | None = None) -> MaskNetworks:
    """The networks named by path, else the base's own.

    Args:
        part, object_: weight files, `.safetensors` or official `.pth`.
    """

    def load(path: Path | None, name: str) -> U2Net | None:
        file = path or base.folder / "u2net" / f"{name}.safetensors"
        return load_u2net(file).to(base.device).eval() if path is not None or file.is_file() else None

    return MaskNetworks(load(part, "part"), load(object_, "object"))


def train_adapter(
    base: Base,
    pairs: Sequence[Pair],
    config: TrainingConfig,
    target: Path,
    workspace: Path,
    *,
    object_name: str,
    defect_name: str,
    networks: MaskNetworks,
) -> Iterator[Progress]:
    """Train on the pairs and write the adapter's folder `target`; resumes from `workspace`.

    Raises:
        UsageError: the options cannot be used with this base.
    """
    began = time.time()
    model = build_pair_model(base, config, object_name, defect_name)
    curve: list[tuple[int, float]] = []
    # The caller's network stays as it was: it may serve the next training.
    mask_net = copy.deepcopy(networks.part)
    for item in train(model, pairs, workspace, object_net=networks.object, mask_net=mask_net):
        if isinstance(item, Progress):
            yield item
        else:
            curve = item
    references, placements = make_references(pairs, config)
    run = {
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": round(time.time() - began, 1),
        "machine": torch.cuda.get_device_name()
        if base.device.type == "cuda"
        else f"{platform.machine()}, {os.cpu_count()} cores",
    }
    card = make_card(model, pairs, placements, curve, object_name, defect_name)
    save_adapter(target, model, card, references, mask_net=mask_net, run=run)


def make_dataset(
    adapter: Adapter,
    config: SamplingConfig,
    num_pairs: int,
    target: Path,
    *,
    networks: MaskNetworks,
    normals: Sequence[NormalImage] = (),
    formats: Sequence[str] = (),
    limits: QualityLimits | None = None,
    max_attempts: int | None = None,
    tally: Tally | None = None,
) -> Iterator[Progress | DatasetSummary]:
    """Generate `num_pairs` accepted pairs and write them as a zip; yields progress, and last the summary.

    Raises:
        UsageError: a format does not exist, or the attempts were used up first; the message says why candidates failed.
    """
    check_formats(formats)
    tally = tally if tally is not None else Tally()
    accepted: list[Candidate] = []
    for item in generate_pairs(
        adapter,
        config,
        num_pairs,
        tally,
        normals=normals,
        object_net=networks.object,
        limits=limits,
        max_attempts=max_attempts,
    ):
        if isinstance(item, Candidate):
            accepted.append(item)
        else:
            yield item
    if len(accepted) < num_pairs:
        reasons = ", ".join(f"{reason} {count}" for reason, count in tally.rejected.most_common()) or "none"
        raise UsageError(
            f"only {len(accepted)} of {num_pairs} pairs passed the quality checks in {tally.attempts} attempts "
            f"(rejected: {reasons}); allow more attempts, loosen the limits, or train longer"
        )
    request: dict[str, Any] = {
        "num_pairs": num_pairs,
        "max_attempts": max_attempts,
        "formats": sorted(formats),
        "limits": asdict(limits or QualityLimits()),
        **asdict(config),
    }
    provenance = Provenance(
        object_name=str(adapter.card["object"]),
        defect_name=str(adapter.card["defect"]),
        request=request,
        adapter_card=adapter.card,
        base_hash=adapter.model.base.digest,
        counts=tally.as_dict(),
    )
    yield write_dataset(
        target,
        accepted,
        provenance,
        formats=formats,
        reals=adapter.references,
        normals=[(normal.name, normal.image) for normal in normals] if formats else (),
    )
