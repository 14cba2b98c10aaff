"""Requests as the API would have stored them, and what the library makes of the same."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from prometheus_client import CollectorRegistry

from model.data.placement import NormalImage
from model.diffusion.base import Base
from model.evaluation.classification import ClassifierSettings
from model.evaluation.profiles import PROFILES, Profile
from model.generation.counts import Counts
from model.generation.dataset import make_dataset
from model.generation.request import GenerationRequest
from model.masks.networks import load_mask_networks
from model.method import DefectType, TrainingRequest
from model.methods import load_adapter, train_adapter
from model.types import Pair
from service.core import object_keys
from service.core.connections import connect
from service.core.messaging import Dispatcher
from service.core.object_keys import Kind, Upload
from service.core.options.dualanodiff import SamplingConfig
from service.core.record import Record
from service.core.records.store import RecordStore
from service.core.settings import Settings
from service.core.storage import ObjectStore
from tests.support import tiny_anomaly
from tests.support.tiny_data import PERMISSIVE, drawn_normal, drawn_pair, last, tiny_config, training_request
from worker.attempt.context import Context
from worker.attempt.model_cache import ModelCache
from worker.monitoring.metrics import WorkerMetrics

TRAINING = asdict(tiny_config(steps=6, checkpoint_every=3))
PAIRS = [drawn_pair(0), drawn_pair(1)]
TYPES = {"break": [drawn_pair(2), drawn_pair(3)], "crack": PAIRS}
TYPED_TRAINING = asdict(tiny_anomaly.tiny_config(steps=6, checkpoint_every=3))
NORMALS = [drawn_normal(0), drawn_normal(1)]
SAMPLING = {"steps": 2, "batch": 2, "mask_method": "threshold", "seed": 5}


@dataclass(frozen=True)
class HeldOut:
    """Photographs that no training sees.

    Attributes:
        defects: the type of each pair, if the upload named them.
    """

    pairs: list[Pair] = field(default_factory=lambda: [drawn_pair(10), drawn_pair(11)])
    normals: list[NormalImage] = field(default_factory=lambda: [drawn_normal(10)])
    defects: list[str] = field(default_factory=list)


TINY_PROFILES = {
    "quick": Profile(
        "quick",
        pairs=2,
        resolution=48,
        patch=32,
        widths=(4, 8),
        steps=4,
        batch=2,
        precision="fp32",
        classifier=ClassifierSettings(resolution=32, steps=2),
    )
}
"""For detectors that are trained at once, and find nothing."""


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def job_request(adapter: str, num_pairs: int, **chosen: Any) -> dict[str, Any]:
    asked = {"adapter_id": adapter, "num_pairs": num_pairs, "formats": ["coco"], "max_attempts": None}
    return {**asked, "limits": asdict(PERMISSIVE), **SAMPLING, **chosen}


@dataclass(frozen=True)
class Service:
    """The servers as the API sees them, without the API."""

    settings: Settings
    store: RecordStore
    objects: ObjectStore
    dispatcher: Dispatcher

    def context(
        self,
        stopping: Callable[[], bool] = lambda: False,
        profiles: Mapping[str, Profile] = PROFILES,
        **settings: Any,
    ) -> Context:
        """What a worker process of its own would have."""
        chosen = self.settings.model_copy(update=settings)
        redis = connect(chosen)
        store, objects = RecordStore(redis, chosen), ObjectStore(chosen)
        model_cache = ModelCache(chosen, store, objects)
        metrics = WorkerMetrics(CollectorRegistry())
        return Context(chosen, redis, store, objects, self.dispatcher, model_cache, stopping, metrics, profiles)

    def create_adapter(
        self,
        *,
        normals: list[NormalImage] = NORMALS,
        held_out: HeldOut | None = None,
        types: Mapping[str, list[Pair]] | None = None,
        **training: Any,
    ) -> str:
        """A queued adapter with its uploads, listed as before there were held-out ones if it has none; no message.

        Args:
            types: defect type → pairs, for AnomalyDiffusion; else DualAnoDiff learns `PAIRS`.
        """
        adapter = object_keys.new_id(Kind.ADAPTER)
        pairs = PAIRS if types is None else [pair for each in types.values() for pair in each]
        defects = [name for name, each in (types or {}).items() for _ in each]
        pictures = {
            Upload.IMAGES: [(pair.name, pair.image) for pair in pairs],
            Upload.MASKS: [(pair.name, pair.mask) for pair in pairs],
            Upload.NORMALS: [(normal.name, normal.image) for normal in normals],
        }
        if held_out is not None:
            pictures |= {
                Upload.HELD_OUT_IMAGES: [(pair.name, pair.image) for pair in held_out.pairs],
                Upload.HELD_OUT_MASKS: [(pair.name, pair.mask) for pair in held_out.pairs],
                Upload.HELD_OUT_NORMALS: [(normal.name, normal.image) for normal in held_out.normals],
            }
        types_of = dict.fromkeys((Upload.IMAGES, Upload.MASKS), defects)
        types_of |= dict.fromkeys((Upload.HELD_OUT_IMAGES, Upload.HELD_OUT_MASKS), held_out.defects if held_out else [])
        listed: dict[str, list[dict[str, Any]]] = {kind: [] for kind in pictures}
        for kind, named in pictures.items():
            for number, (name, pixels) in enumerate(named):
                content, key = png(pixels), object_keys.upload(adapter, kind, number)
                self.objects.put(key, content, "image/png")
                digest = hashlib.sha256(content).hexdigest()
                named_type = {"defect": types_of[kind][number]} if types_of.get(kind) else {}
                listed[kind].append({"name": name, "key": key, "bytes": len(content), "sha256": digest, **named_type})
        self.objects.put(object_keys.inputs(adapter), json.dumps(listed).encode(), "application/json")
        request: dict[str, Any] = {"name": "tiles", "object": "metal tile", "defect": "crack", "base": None}
        request["training"] = {**(TRAINING if types is None else TYPED_TRAINING), **training}
        if types is not None:
            request |= {"method": "anomalydiffusion", "defect": ", ".join(types)}
            request["defects"] = [{"name": name, "pairs": len(each)} for name, each in types.items()]
        self.store.submissions.create(Kind.ADAPTER, adapter, "me", request)
        return adapter

    def succeeded_adapter(
        self,
        made: Path,
        normals: list[NormalImage] = NORMALS,
        held_out: HeldOut | None = None,
        types: Mapping[str, list[Pair]] | None = None,
    ) -> str:
        """An adapter that has the files of a folder."""
        adapter, owner = self.create_adapter(normals=normals, held_out=held_out, types=types), "library"
        assert self.store.claims.claim(adapter, owner)
        files = []
        for path in sorted(path for path in made.rglob("*") if path.is_file()):
            name, content = path.relative_to(made).as_posix(), path.read_bytes()
            self.objects.put(object_keys.artifact(adapter, owner) + name, content)
            files.append({"path": name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()})
        artifact = object_keys.artifact(adapter, owner)
        result = {"artifact": artifact, "files": files, "request": {"base": self.settings.base}}
        assert self.store.claims.succeed(adapter, owner, result, 0)
        return adapter

    def create_job(self, adapter: str, num_pairs: int, **chosen: Any) -> str:
        """A queued job, and no message."""
        job = object_keys.new_id(Kind.JOB)
        self.store.submissions.create(Kind.JOB, job, "me", job_request(adapter, num_pairs, **chosen))
        return job

    def record(self, name: str) -> Record:
        found = self.store.records.get(name)
        assert found is not None
        return found

    def artifact(self, adapter: str) -> dict[str, bytes]:
        """Name → content of an adapter's files; without run.json, which tells when and where it was made."""
        result = self.record(adapter).result
        assert result is not None
        folder = result["artifact"]
        names = [each.key.removeprefix(folder) for each in self.objects.list(folder)]
        return {name: self.objects.get(folder + name) for name in names if name != "run.json"}

    def dataset(self, job: str) -> bytes:
        result = self.record(job).result
        assert result is not None
        return self.objects.get(result["dataset"])

    def folders(self, name: str) -> set[str]:
        """The first parts of the keys of all that a record has stored."""
        prefix = object_keys.prefix(name)
        return {each.key.removeprefix(prefix).split("/")[0] for each in self.objects.list(prefix)}


def train_by_library(base: Base, folder: Path, **training: Any) -> Path:
    """The same training without any service."""
    target = folder / "adapter"
    pairs = [Pair(pair.name, pair.image, pair.mask) for pair in PAIRS]
    config = replace(tiny_config(), **{**TRAINING, **training})
    last(train_adapter(training_request(base, pairs, config, load_mask_networks(base)), target, folder / "workspace"))
    return target


def train_typed_by_library(base: Base, folder: Path, **training: Any) -> Path:
    """AnomalyDiffusion on `TYPES`, likewise."""
    target = folder / "typed"
    (first, pairs), *others = TYPES.items()
    request = TrainingRequest(
        base,
        pairs,
        tiny_anomaly.tiny_config(**{**TYPED_TRAINING, **training}),
        "metal tile",
        first,
        load_mask_networks(base),
        normals=NORMALS,
        method="anomalydiffusion",
        others=[DefectType(name, each) for name, each in others],
    )
    last(train_adapter(request, target, folder / "typed-workspace"))
    return target


def files_of(folder: Path) -> dict[str, bytes]:
    """As `Service.artifact`, of a folder."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != "run.json"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def dataset_by_library(
    base: Base, library_adapter: Path, target: Path, num_pairs: int, normals: list[NormalImage] = NORMALS
) -> bytes:
    """The zip of `job_request(…, num_pairs)` without any service."""
    request = GenerationRequest(
        load_adapter(library_adapter, base),
        SamplingConfig(**SAMPLING, anchored=bool(normals)),
        num_pairs,
        normals=normals,
        object_net=load_mask_networks(base).object,
        limits=PERMISSIVE,
        formats=["coco"],
    )
    job = make_dataset(request, target, counts=Counts())
    last(job)
    return target.read_bytes()
