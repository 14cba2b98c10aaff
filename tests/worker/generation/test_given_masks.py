"""A job's given masks get equal numbers of pairs, whoever makes them and however often that is interrupted."""

from __future__ import annotations

import io
import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest

from model.anomalydiffusion.calibration import visibility
from model.data.placement import NormalImage
from model.diffusion.base import Base
from model.generation.dataset import make_dataset
from model.generation.request import GenerationRequest
from model.masks.networks import load_mask_networks
from model.methods import load_adapter, method_of
from model.runtime.progress import Progress
from service.core.asked_places import asked_places
from service.core.record import State
from tests.support.servers import RedisServer
from tests.support.tiny_data import PERMISSIVE, last
from tests.worker.ending import asked_to_end_at
from tests.worker.stored import NORMALS, SAMPLING, TYPES, Service, train_typed_by_library
from worker.generation.run import run_generation

pytestmark = pytest.mark.timeout(600)

WANTED = {"break": 2, "crack": 4}
PLACEMENTS = [
    {"polygon": [[0.1, 0.1], [0.4, 0.1], [0.4, 0.25]], "defect": "crack"},
    {"polygon": [[0.2, 0.5], [0.7, 0.5], [0.7, 0.6]]},
    {"polygon": [[0.5, 0.8], [0.9, 0.8], [0.9, 0.9]], "normal": NORMALS[0].name, "defect": "break"},
]
EXPECTED = {
    "placements[0]": 2,
    "placements[1] (break)": 1,
    "placements[1] (crack)": 2,
    "placements[2]": 1,
}


@pytest.fixture(scope="module")
def typed_adapter(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_typed_by_library(base, tmp_path_factory.mktemp("typed"))


def request(base: Base, folder: Path, limits: Any, normals: list[NormalImage] = NORMALS) -> GenerationRequest:
    adapter = load_adapter(folder, base)
    options = {name: SAMPLING[name] for name in ("steps", "batch", "seed")}
    return GenerationRequest(
        adapter,
        method_of(adapter).resolve_sampling(base, options, has_normals=True, adapter=adapter),
        sum(WANTED.values()),
        normals=normals,
        object_net=load_mask_networks(base).object,
        formats=["coco"],
        limits=limits,
        max_attempts=80,
        places=asked_places({"placements": PLACEMENTS}, {}, normals),
        defects=WANTED,
    )


@pytest.fixture(scope="module")
def asked(base: Base, typed_adapter: Path) -> dict[str, Any]:
    """A job whose checks refuse half of the candidates."""
    sampler = request(base, typed_adapter, PERMISSIVE).sampler()
    made = [item.to_candidate() for item in sampler.decoded(0, 12) if not isinstance(item, Progress)]
    seen = float(np.median([visibility([candidate]) for candidate in made]))
    limits = asdict(replace(PERMISSIVE, min_visibility=seen))
    return {"limits": limits, "defects": WANTED, "max_attempts": 80, "placements": PLACEMENTS}


@pytest.fixture(scope="module")
def expected(base: Base, typed_adapter: Path, asked: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("zip") / "dataset.zip"
    last(make_dataset(request(base, typed_adapter, replace(PERMISSIVE, **asked["limits"])), path))
    return path.read_bytes()


def test_workers_that_share_a_job_or_take_it_over_fill_every_mask_alike(
    service: Service, typed_adapter: Path, asked: dict[str, Any], expected: bytes, redis_server: RedisServer
) -> None:
    adapter = service.succeeded_adapter(typed_adapter, types=TYPES)
    shared = service.create_job(adapter, sum(WANTED.values()), **asked)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda context: run_generation(shared, context), [service.context(), service.context()]))
    assert service.record(shared).state is State.SUCCEEDED, service.record(shared).error
    assert service.dataset(shared) == expected
    taken_over = service.create_job(adapter, sum(WANTED.values()), **asked)
    with asked_to_end_at(service, redis_server, b'"next_block": 2,') as context:
        run_generation(taken_over, context)
    assert service.record(taken_over).state is State.QUEUED
    run_generation(taken_over, service.context())
    assert service.dataset(taken_over) == expected
    with ZipFile(io.BytesIO(expected)) as file:
        rows = [json.loads(line) for line in file.read("manifest.jsonl").splitlines()]
        described = json.loads(file.read("dataset.json"))
    assert described["counts"]["masks"] == EXPECTED
    assert described["counts"]["defects"] == WANTED
    assert described["counts"]["skipped"] > 0
    assert Counter(row["given"] for row in rows) == {"placements[0]": 2, "placements[1]": 3, "placements[2]": 1}


def test_a_mask_that_cannot_be_filled_is_named(service: Service, typed_adapter: Path) -> None:
    adapter = service.succeeded_adapter(typed_adapter, types=TYPES)
    wide = {"polygon": [[0.02, 0.02], [0.98, 0.02], [0.98, 0.98], [0.02, 0.98]], "defect": "crack"}
    limits = asdict(replace(PERMISSIVE, full_area=0.3))
    asked = {"placements": [PLACEMENTS[0], wide], "defects": {"crack": 2}, "max_attempts": 8, "limits": limits}
    job = service.create_job(adapter, 2, **asked)
    run_generation(job, service.context())
    record = service.record(job)
    assert record.result is not None, record.error
    assert record.result["partial"]["num_pairs"] == 1
    assert "too few pairs of the masks placements[1] (0 of 1, full_mask " in record.result["partial"]["detail"]
    counts = record.result["counts"]
    assert counts["masks"] == {"placements[0]": 1, "placements[1]": 0}
    assert counts["masks_rejected"]["placements[1]"] == {"full_mask": counts["rejected"]["full_mask"]}
