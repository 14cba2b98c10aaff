"""AnomalyDiffusion with two defect types survives kills as DualAnoDiff does: not a byte differs, and each type gets its
pairs.
"""

from __future__ import annotations

import io
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from model.diffusion.base import Base
from model.generation.dataset import make_dataset
from model.generation.filter import CandidateFilter
from model.generation.request import GenerationRequest
from model.masks.networks import load_mask_networks
from model.methods import load_adapter, method_of
from model.runtime.progress import Progress
from service.core.record import State
from tests.support.relay import Held, held_back
from tests.support.servers import S3Server
from tests.support.tiny_data import PERMISSIVE, last
from tests.support.waiting import wait_until
from tests.worker.celery_worker import CeleryWorker
from tests.worker.stored import NORMALS, SAMPLING, TYPES, Service, files_of, train_typed_by_library
from tests.worker.test_kills import ended, judged

pytestmark = [pytest.mark.timeout(600), pytest.mark.usefixtures("reconciling")]

StartWorker = Callable[..., CeleryWorker]
LONG = {"steps": 24, "checkpoint_every": 6}
WANTED = {"crack": 6, "break": 3}


@pytest.fixture(scope="module")
def typed_adapter(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_typed_by_library(base, tmp_path_factory.mktemp("typed"))


@pytest.fixture(scope="module")
def asked(base: Base, typed_adapter: Path) -> dict[str, Any]:
    """A job whose checks refuse some candidates, so that one type is complete before the other."""
    judge, adapter = CandidateFilter(request(base, typed_adapter, {})), load_adapter(typed_adapter, base)
    sampler = method_of(adapter).prepare(adapter, request(base, typed_adapter, {}).settings, normals=NORMALS)
    made = [item.to_candidate() for item in sampler.decoded(0, 12) if not isinstance(item, Progress)]
    areas = sorted(judge.verdict(candidate).scores["area"] for candidate in made)
    largest = max(float(real.mask.mean()) for real in adapter.references)
    limits = replace(PERMISSIVE, max_area_ratio=(areas[7] + areas[8]) / 2 / largest)
    return {"limits": asdict(limits), "defects": WANTED, "max_attempts": 80}


def request(base: Base, folder: Path, asked: dict[str, Any]) -> GenerationRequest:
    adapter = load_adapter(folder, base)
    options = {name: SAMPLING[name] for name in ("steps", "batch", "seed")}
    settings = method_of(adapter).resolve_sampling(base, options, has_normals=True, adapter=adapter)
    return GenerationRequest(
        adapter,
        settings,
        sum(WANTED.values()),
        normals=NORMALS,
        object_net=load_mask_networks(base).object,
        formats=["coco"],
        limits=replace(PERMISSIVE, **asked.get("limits", {})),
        max_attempts=asked.get("max_attempts"),
        defects=asked.get("defects"),
    )


def test_a_killed_training_of_two_types_ends_with_the_same_files(
    service: Service, base: Base, start_worker: StartWorker, s3_server: S3Server, tmp_path: Path
) -> None:
    expected = files_of(train_typed_by_library(base, tmp_path, **LONG))
    adapter = service.create_adapter(types=TYPES, **LONG)
    service.dispatcher.send_training(adapter)
    with held_back(s3_server.port, Held(b"PUT ", b"/run.json")) as relay:
        worker = start_worker(s3_endpoint_url=f"http://127.0.0.1:{relay.port}")
        wait_until(lambda: service.record(adapter).checkpoint is not None)
        time.sleep(random.uniform(0, 0.5))
        worker.kill()
    assert service.record(adapter).state is State.RUNNING
    ended(service, adapter, logs=start_worker("second"))
    assert service.artifact(adapter) == expected
    card = json.loads(expected["card.json"])
    assert card["types"] == ["break", "crack"]
    assert Counter(each["defect"] for each in card["data"]) == Counter({"break": 2, "crack": 2})


def test_a_killed_generation_of_two_types_ends_with_the_same_zip(
    service: Service,
    base: Base,
    start_worker: StartWorker,
    typed_adapter: Path,
    asked: dict[str, Any],
    s3_server: S3Server,
    tmp_path: Path,
) -> None:
    """Two workers share it; one is killed amid it, and the dataset never arrives before, so that it cannot end."""
    expected = tmp_path / "dataset.zip"
    last(make_dataset(request(base, typed_adapter, asked), expected))
    adapter = service.succeeded_adapter(typed_adapter, types=TYPES)
    job = service.create_job(adapter, sum(WANTED.values()), **asked)
    service.dispatcher.send_generation(job, 2)
    with held_back(s3_server.port, Held(b"PUT ", b"/dataset.zip")) as relay:
        worker = start_worker(s3_endpoint_url=f"http://127.0.0.1:{relay.port}")
        wait_until(lambda: judged(service, job) >= 2)
        second = start_worker("second")
        time.sleep(random.uniform(0, 0.3))
        worker.kill()
    ended(service, job, logs=second)
    assert service.dataset(job) == expected.read_bytes()
    with ZipFile(io.BytesIO(service.dataset(job))) as file:
        rows = [json.loads(line) for line in file.read("manifest.jsonl").splitlines()]
        described = json.loads(file.read("dataset.json"))
    assert Counter(row["defect"] for row in rows) == Counter(WANTED)
    record = service.record(job)
    assert record.result is not None
    assert record.result["counts"] == described["counts"]
    assert described["counts"]["defects"] == {"break": 3, "crack": 6}
    assert described["counts"]["skipped"] > 0
