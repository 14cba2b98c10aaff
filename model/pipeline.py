"""The two jobs as plain functions, for the command line and for workers alike: train an adapter, make a dataset."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import platform
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from model.data.placement import NormalImage
from model.diffusion.base import SHIPPED, Base
from model.dualanodiff.adapter import Adapter, make_card, make_references, save_adapter
from model.dualanodiff.model import build_model
from model.dualanodiff.trainer import train
from model.export.dataset import DatasetSummary, Provenance, check_formats, write_dataset
from model.generation.filter import Counts
from model.generation.generate import generate_pairs
from model.generation.pair_store import PairStore, store_beside
from model.masks.u2net import U2Net, load_u2net
from model.runtime.progress import Progress
from model.runtime.timing import stage
from model.training.early_stopping import TrainingResult
from model.types import Candidate, Pair
from service.core.atomic_write import write_text
from service.core.errors import UsageError
from service.core.options.dualanodiff import SamplingConfig, TrainingConfig
from service.core.options.quality import QualityLimits


@dataclass(frozen=True, slots=True)
class MaskNetworks:
    """The two U²-Nets, each None where there is none: `part` finds defects on parts, `object` finds products."""

    part: U2Net | None
    object: U2Net | None


def load_mask_networks(base: Base, part: Path | None = None, object_: Path | None = None) -> MaskNetworks:
    """The networks named by path, else the base's own, else those that come with the mini base.

    Args:
        part, object_: weight files, `.safetensors` or official `.pth`.
    """
    return MaskNetworks(_load_net(base, "part", part), load_object_net(base, object_))


def load_object_net(base: Base, path: Path | None = None) -> U2Net | None:
    """The network that finds products, as in `load_mask_networks`: all that generation needs besides the adapter."""
    return _load_net(base, "object", path)


def _load_net(base: Base, name: str, path: Path | None) -> U2Net | None:
    brought = (folder / "u2net" / f"{name}.safetensors" for folder in (base.folder, SHIPPED / "mini"))
    file = path or next((file for file in brought if file.is_file()), None)
    return load_u2net(file).to(base.device).eval() if file is not None else None


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
    normals: Sequence[NormalImage] = (),
    callback: AdapterCallback | None = None,
) -> Iterator[Progress]:
    """Train on the pairs and write the adapter's folder `target`; resumes from `workspace`.

    Args:
        normals: good parts, for composites; without any there are none, whatever the configuration says.
        callback: asked for extra checkpoints, and told of all.

    Raises:
        UsageError: the options cannot be used with this base.
    """
    if config.composites and not normals:
        config = replace(config, composites=0)
        yield Progress("compose", 0, 0, "composites", note="no good parts were given: the real pairs alone are learned")
    clock = _Clock(workspace)
    model = build_model(base, config, object_name, defect_name)
    # The caller's network stays as it was: it may serve the next training.
    mask_net = copy.deepcopy(networks.part)
    references, placements = make_references(pairs, config)
    shown = {normal.name: normal.image for normal in normals} if config.composites else {}
    told = None
    if callback is not None:
        unfinished = make_card(
            model, pairs, placements, TrainingResult([], 0, 0), object_name, defect_name, normals=shown
        )
        told = _WithAdapter(callback, Adapter(model, unfinished, networks.part, references, placements))
    trained = TrainingResult([], 0, 0)
    job = train(model, pairs, workspace, normals=normals, object_net=networks.object, mask_net=mask_net, callback=told)
    for item in job:
        if isinstance(item, Progress):
            clock.keep()
            yield item
        else:
            trained = item
    run = {
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": round(clock.seconds, 1),
        "machine": torch.cuda.get_device_name()
        if base.device.type == "cuda"
        else f"{platform.machine()}, {os.cpu_count()} cores",
    }
    card = make_card(model, pairs, placements, trained, object_name, defect_name, normals=shown)
    save_adapter(target, model, card, references, mask_net=mask_net, run=run)


class AdapterCallback(Protocol):
    """As `model.dualanodiff.trainer.TrainingCallback`, told of the adapter as it is at a checkpoint."""

    def wants_checkpoint(self) -> bool:
        """Asked after every step: whether to write a checkpoint now, besides the regular ones."""

    def on_checkpoint(self, step: int, adapter: Adapter) -> None:
        """Told of the step at which a checkpoint was taken, while it is being written.

        Args:
            step: steps done.
            adapter: good for sampling until this returns. Its mask network is not adapted yet, its loss curve empty.
        """

    def on_saved(self, step: int, checkpoint: Path) -> None:
        """As `model.dualanodiff.trainer.TrainingCallback.saved`."""


@dataclass(frozen=True, slots=True)
class _WithAdapter:
    """Passes on to its watch what training says, together with the adapter."""

    callback: AdapterCallback
    adapter: Adapter

    def wants_checkpoint(self) -> bool:
        return self.callback.wants_checkpoint()

    def on_checkpoint(self, step: int) -> None:
        self.callback.on_checkpoint(step, self.adapter)

    def on_saved(self, step: int, checkpoint: Path) -> None:
        self.callback.on_saved(step, checkpoint)


class _Clock:
    """Seconds spent on a training so far, by all the processes that worked on it."""

    def __init__(self, workspace: Path) -> None:
        workspace.mkdir(parents=True, exist_ok=True)
        self._file = workspace / "elapsed.json"
        self._began = time.monotonic()
        if self._file.is_file():
            self._began -= json.loads(self._file.read_text(encoding="utf-8"))["seconds"]

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def keep(self) -> None:
        """Note them for the process that may have to go on."""
        write_text(self._file, json.dumps({"seconds": self.seconds}))


def make_dataset(  # noqa: PLR0913 - what a request says, one by one
    adapter: Adapter,
    config: SamplingConfig,
    num_pairs: int,
    target: Path,
    *,
    object_net: U2Net | None = None,
    normals: Sequence[NormalImage] = (),
    formats: Sequence[str] = (),
    limits: QualityLimits | None = None,
    max_attempts: int | None = None,
    counts: Counts | None = None,
    force: bool = False,
) -> Iterator[Progress | DatasetSummary]:
    """Generate `num_pairs` accepted pairs and write them as a zip; yields progress, and last the summary.

    Accepted pairs lie in a folder beside `target` until the zip is complete. The same request goes on from there, with
    more attempts if need be, and ends with the same bytes as if it had never been interrupted.

    Args:
        object_net: finds products, see `load_object_net`.
        max_attempts: candidates tried at most; 10 per pair by default.
        counts: counts, set to where the request stopped and updated as candidates are judged.
        force: throw away the unfinished pairs of another request.

    Raises:
        UsageError: a format does not exist; the folder holds pairs of another request; or the attempts were used up
            first: the message says why candidates failed.
    """
    check_formats(formats)
    limits = limits or QualityLimits()
    counts = counts if counts is not None else Counts()
    store = store_beside(target)
    store.begin(_identity(adapter, config, num_pairs, normals, object_net, limits), counts, force=force)
    if counts.attempts:
        note = f"resuming after {counts.attempts} candidates"
        yield Progress("sample", counts.accepted, num_pairs, "pairs", note=note)
    candidates = generate_pairs(
        adapter,
        config,
        num_pairs,
        counts,
        normals=normals,
        object_net=object_net,
        limits=limits,
        max_attempts=max_attempts,
        resumed=store.pairs(counts.accepted),
        keep=store.add,
        on_rejected=lambda _: store.record(counts),
    )
    with closing(candidates):
        for item in candidates:
            if isinstance(item, Candidate):
                store.record(counts)
            else:
                yield item
    if counts.accepted < num_pairs:
        raise _shortfall(store, counts, num_pairs)
    summary = finish_dataset(
        adapter,
        config,
        num_pairs,
        target,
        store.pairs(num_pairs),
        counts,
        normals=normals,
        formats=formats,
        limits=limits,
        max_attempts=max_attempts,
    )
    store.remove()
    yield summary


def finish_dataset(
    adapter: Adapter,
    config: SamplingConfig,
    num_pairs: int,
    target: Path,
    pairs: Iterable[Candidate],
    counts: Counts,
    *,
    normals: Iterable[NormalImage] = (),
    formats: Sequence[str] = (),
    limits: QualityLimits | None = None,
    max_attempts: int | None = None,
) -> DatasetSummary:
    """Write the zip of a request whose pairs are all there; the same request and pairs give the same bytes.

    Args:
        pairs: the `num_pairs` accepted ones, in order, read once.
        counts: what became of the candidates.
        normals: stored for the formats that want them, read once.
        limits, max_attempts: as `make_dataset` was asked.

    Raises:
        UsageError: a format does not exist.
    """
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
        counts=counts.as_dict(),
    )
    with stage("zip"):
        return write_dataset(
            target,
            pairs,
            provenance,
            formats=formats,
            reals=adapter.references,
            normals=((normal.name, normal.image) for normal in normals) if formats else (),
        )


def _identity(
    adapter: Adapter,
    config: SamplingConfig,
    num_pairs: int,
    normals: Sequence[NormalImage],
    object_net: U2Net | None,
    limits: QualityLimits,
) -> dict[str, Any]:
    """All that decides which candidates are made and accepted, as JSON; the adapter's card names the base's weights."""
    return {
        "adapter": adapter.card,
        "num_pairs": num_pairs,
        "normals": [[normal.name, hashlib.sha256(normal.image.tobytes()).hexdigest()] for normal in normals],
        "object_net": _weights_hash(object_net) if object_net is not None else None,
        **asdict(limits),
        **asdict(config),
    }


def _weights_hash(net: U2Net) -> str:
    total = hashlib.sha256()
    for name, tensor in sorted(net.state_dict().items()):
        total.update(name.encode())
        total.update(tensor.cpu().numpy().tobytes())
    return total.hexdigest()


def shortfall(counts: Counts, num_pairs: int) -> str:
    """How many pairs there are too few, and why candidates were rejected."""
    reasons = ", ".join(f"{reason} {count}" for reason, count in counts.rejected.most_common()) or "none"
    return (
        f"only {counts.accepted} of {num_pairs} pairs passed the quality checks in {counts.attempts} attempts "
        f"(rejected: {reasons})"
    )


def _shortfall(store: PairStore, counts: Counts, num_pairs: int) -> UsageError:
    """Why there are too few pairs; those there are stay, for the same request with more attempts."""
    told = shortfall(counts, num_pairs)
    if not counts.accepted:
        store.remove()
        return UsageError(f"{told}; allow more attempts, loosen the limits, or train longer")
    return UsageError(
        f"{told}; those that passed are kept in {store.folder}: the same request with max-attempts above "
        f"{counts.attempts} goes on with them; or begin anew with looser limits, or train longer"
    )
