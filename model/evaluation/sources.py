"""Makes a source's pairs for one seed and defect type: trains its adapter, generates, and keeps everything on disk."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from PIL import Image

from model.data.placement import NormalImage
from model.diffusion.base import Base
from model.evaluation.profiles import Profile
from model.evaluation.rows import Source
from model.generation.counts import Counts
from model.generation.filter import CandidateFilter
from model.generation.generate import generate_pairs
from model.generation.pair_store import PairStore
from model.generation.request import GenerationRequest
from model.masks.networks import MaskNetworks
from model.method import Adapter, TrainingRequest
from model.methods import load_adapter, method_named, train_adapter
from model.quality.gate import Verdict
from model.runtime.progress import Progress
from model.types import Candidate, Pair
from service.core.atomic_write import write_text
from service.core.options.declaration import chosen, declared
from service.core.options.methods import METHOD_OPTIONS
from service.core.options.quality import QualityLimits
from service.core.strict_json import to_json

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

REJECTED_KEPT = 8
"""Rejected candidates kept for the report, per source, seed and defect type."""


_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class Shot:
    """The few-shot photographs of one defect type, and what sources may use beside them."""

    object_name: str
    defect_name: str
    pairs: Sequence[Pair]
    normals: Sequence[NormalImage]


@dataclass(frozen=True, slots=True)
class Rejected:
    """A candidate that did not pass, and why."""

    candidate: Candidate
    reasons: Sequence[str]


@dataclass(frozen=True, slots=True)
class MadePairs:
    """A source's pairs of one defect type.

    Attributes:
        counts: `Counts.as_dict()`; fewer accepted than asked for where the attempts were used up. Of pairs that were
            taken unchecked, `would_pass` says how many would have passed.
        seconds: spent on "train" and "generate", in all runs together where some were interrupted.
        rejected: some of the rejected candidates.
    """

    pairs: list[Candidate]
    counts: dict[str, Any]
    seconds: dict[str, float]
    rejected: list[Rejected] = field(default_factory=list)

    def digest(self) -> str:
        """Return a hash of all pairs."""
        total = hashlib.sha256()
        for pair in self.pairs:
            total.update(pair.image.tobytes() + pair.mask.tobytes())
        return total.hexdigest()


@dataclass(frozen=True, slots=True)
class Studio:
    """What pairs are made with: the base and its mask networks, and the folder of one seed."""

    base: Base
    networks: MaskNetworks
    folder: Path
    profile: Profile
    seed: int

    def make(self, name: str, source: Source, shot: Shot) -> Generator[Progress, None, MadePairs]:
        """Train, generate and store; what is on disk already is used. Yields progress, returns the pairs.

        Raises:
            UsageError: the source cannot be used on these photographs; says why.
        """
        adapter_folder = self.folder / "adapters" / (source.adapter or name) / shot.defect_name
        folder = self.folder / "pairs" / name / shot.defect_name
        yield from self._train(source, shot, adapter_folder)
        yield from self._generate(source, shot, adapter_folder, folder)
        made = _read_facts(folder)
        seconds = {"train": _read_facts(adapter_folder)["seconds"], "generate": made["seconds"]}
        pairs = list(PairStore(folder).pairs(made["counts"]["accepted"]))
        return MadePairs(pairs, made["counts"], seconds, list(_read_rejected(_rejected_of(folder))))

    def forget(self, name: str, source: Source) -> None:
        """Delete a source's pairs and the adapters that it samples from, finished or not."""
        for folder in (self.folder / "pairs" / name, self.folder / "adapters" / (source.adapter or name)):
            shutil.rmtree(folder, ignore_errors=True)

    def _train(self, source: Source, shot: Shot, target: Path) -> Iterator[Progress]:
        if _facts_of(target).is_file():
            return
        method = method_named(source.method)
        options = self._options(METHOD_OPTIONS[source.method].training, steps=self.profile.adapter_steps) | dict(
            source.training
        )
        settings = method.resolve_training(self.base, options)
        request = TrainingRequest(
            self.base,
            shot.pairs,
            settings,
            shot.object_name,
            shot.defect_name,
            self.networks,
            normals=shot.normals,
            method=source.method,
        )
        method.check_training(request)
        workspace = target.with_name(f"{target.name}.training")
        workspace.mkdir(parents=True, exist_ok=True)
        clock = _Clock(target)
        yield from clock.timed(train_adapter(request, target, workspace))
        _write_facts(target, seconds=clock.stop())
        shutil.rmtree(workspace)

    def _options(self, declaration: type[DataclassInstance], **more: Any) -> dict[str, Any]:
        """Return what seed and profile decide, as far as the method has such options."""
        wanted = chosen({"seed": self.seed, "precision": self.profile.precision, "preset": self.profile.preset, **more})
        return {name: value for name, value in wanted.items() if name in declared(declaration)}

    def _generate(self, source: Source, shot: Shot, adapter_folder: Path, folder: Path) -> Iterator[Progress]:
        if _facts_of(folder).is_file():
            return
        clock = _Clock(folder)
        request = self._generation(source, shot, load_adapter(adapter_folder, self.base))
        counts, store = Counts(), PairStore(folder)
        store.begin(request.identity(), counts)

        def on_rejected(candidate: Candidate, verdict: Verdict) -> None:
            store.record(counts)
            _keep_rejected(_rejected_of(folder), candidate, verdict)

        items = generate_pairs(
            request, counts, resumed=store.pairs(counts.accepted), keep=store.add, on_rejected=on_rejected
        )
        with closing(items):
            for item in clock.timed(items):
                if isinstance(item, Candidate):
                    store.record(counts)
                else:
                    yield item
        facts: dict[str, Any] = {"seconds": clock.stop(), "counts": counts.as_dict()}
        if not request.limits.reject:
            facts["counts"] |= _would_pass(request, store.pairs(counts.accepted))
        _write_facts(folder, **facts)

    def _generation(self, source: Source, shot: Shot, adapter: Adapter) -> GenerationRequest:
        method, object_net = method_named(source.method), self.networks.object
        options = self._options(METHOD_OPTIONS[source.method].sampling) | dict(source.sampling)
        has_normals = bool(shot.normals)
        settings = method.resolve_sampling(self.base, options, has_normals=has_normals, adapter=adapter)
        method.check_sampling(adapter, settings, has_normals=has_normals, has_object_net=object_net is not None)
        return GenerationRequest(
            adapter,
            settings,
            self.profile.pairs,
            normals=shot.normals,
            object_net=object_net,
            limits=QualityLimits(**source.limits),
            max_attempts=self.profile.attempts * self.profile.pairs,
        )


class _Clock:
    """Counts the seconds spent on a folder over all runs; a file beside the folder keeps those of interrupted ones."""

    def __init__(self, folder: Path) -> None:
        self._path = folder.with_name(f"{folder.name}.seconds")
        self._before = float(self._path.read_text(encoding="utf-8")) if self._path.is_file() else 0.0
        self._began = time.monotonic()

    def timed(self, items: Iterable[_Item]) -> Iterator[_Item]:
        """Pass items on, and keep what was spent before each of them."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        for item in items:
            write_text(self._path, f"{self._spent():.3f}")
            yield item

    def stop(self) -> float:
        """Return the seconds of all runs, and keep none."""
        self._path.unlink(missing_ok=True)
        return self._spent()

    def _spent(self) -> float:
        return self._before + time.monotonic() - self._began


def _would_pass(request: GenerationRequest, pairs: Iterable[Candidate]) -> dict[str, int]:
    """Count how many of the pairs that were taken unchecked would have passed the checks."""
    limits = replace(request.limits, reject=True)
    checked = CandidateFilter(replace(request, limits=limits))
    return {"would_pass": sum(checked.verdict(replace(pair, scores={})).accepted for pair in pairs)}


def _facts_of(folder: Path) -> Path:
    """Return the file beside a folder that says that its content is complete, and what it cost."""
    return folder.with_name(f"{folder.name}.json")


def _write_facts(folder: Path, **facts: Any) -> None:
    write_text(_facts_of(folder), to_json(facts))


def _read_facts(folder: Path) -> dict[str, Any]:
    return dict(json.loads(_facts_of(folder).read_text(encoding="utf-8")))


def _rejected_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.rejected")


def _keep_rejected(folder: Path, candidate: Candidate, verdict: Verdict) -> None:
    """Write a rejected candidate and its reasons, unless there are enough, or enough of the same reasons."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = [json.loads(path.read_text(encoding="utf-8"))["reasons"] for path in folder.glob("*.json")]
    reasons = [str(reason) for reason in verdict.reasons]
    if len(kept) >= REJECTED_KEPT or sum(each == reasons for each in kept) >= REJECTED_KEPT // 4:
        return
    name = f"{candidate.index:06d}"
    Image.fromarray(candidate.image).save(folder / f"{name}.png")
    Image.fromarray(candidate.mask).save(folder / f"{name}_mask.png")
    write_text(folder / f"{name}.json", to_json({"record": candidate.record(), "reasons": reasons}))


def _read_rejected(folder: Path) -> Iterator[Rejected]:
    for path in sorted(folder.glob("*.json")):
        facts = json.loads(path.read_text(encoding="utf-8"))
        yield Rejected(PairStore(folder).read(path.stem, facts["record"]), facts["reasons"])
