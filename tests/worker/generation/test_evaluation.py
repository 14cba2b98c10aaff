"""A job's pairs are evaluated on held-out photographs: one verdict, nothing done twice, and no dataset lost by it."""

from __future__ import annotations

import json
import multiprocessing
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from model.diffusion.base import Base
from model.evaluation.run import SAME_PAIRS
from model.runtime.progress import Progress
from service.core import object_keys
from service.core.connections import connect
from service.core.messaging import Dispatcher
from service.core.record import Record, State
from service.core.records.store import RecordStore
from service.core.settings import Settings
from service.core.storage import ObjectStore
from tests.support.relay import Held, held_back
from tests.support.servers import RedisServer, S3Server
from tests.support.tiny_data import drawn_pair
from tests.support.waiting import wait_until
from tests.worker.ending import asked_to_end_at
from tests.worker.stored import (
    PAIRS,
    TINY_PROFILES,
    TYPES,
    HeldOut,
    Service,
    dataset_by_library,
    train_typed_by_library,
)
from tests.worker.test_cancel import WITHIN, cancelled_in
from worker.generation.evaluation import TOGETHER, _shares
from worker.generation.run import run_generation
from worker.training.run import run_training

NUM_PAIRS = 3
ONE_SEED = {"profile": "quick", "seeds": 1}
FIRST_ROW_KEPT = b'{"evaluation": {"0/real": '
ENDLESS = {"quick": replace(TINY_PROFILES["quick"], steps=100_000)}


@pytest.fixture
def measurable(service: Service, library_adapter: Path) -> str:
    """An adapter with held-out photographs."""
    return service.succeeded_adapter(library_adapter, held_out=HeldOut())


def evaluated(service: Service, adapter: str, **evaluation: Any) -> str:
    return service.create_job(adapter, NUM_PAIRS, evaluation={**ONE_SEED, **evaluation})


def description(service: Service, job: str) -> dict[str, Any]:
    """What the dataset says of itself."""
    with ZipFile(BytesIO(service.dataset(job))) as file:
        return dict(json.loads(file.read("dataset.json")))


def readme(service: Service, job: str) -> str:
    with ZipFile(BytesIO(service.dataset(job))) as file:
        return file.read("README.md").decode()


def succeeded(service: Service, job: str) -> Record:
    record = service.record(job)
    assert record.state is State.SUCCEEDED, record.error
    assert service.folders(job) == {"results"}
    return record


def verdict(record: Record) -> dict[str, Any]:
    assert record.result is not None
    return dict(record.result["verdict"])


def test_the_verdict_is_in_record_and_dataset(service: Service, measurable: str) -> None:
    job = evaluated(service, measurable, seeds=2)
    run_generation(job, service.context(profiles=TINY_PROFILES))
    found = verdict(succeeded(service, job))
    assert (found["status"], found["metric"], found["seeds"]) == ("measured", "pixel_ap", 2)
    assert found["sentence"].startswith("Adding these pairs changed pixel AP by ")
    told = description(service, job)["evaluation"]
    assert told["verdict"] == found
    assert (told["profile"], told["seeds"], told["held_out"]) == ("quick", [0, 1], {"pairs": 2, "normals": 1})
    assert [row["row"] for row in told["rows"]] == ["real", "real+generated"]
    means = [row["mean"]["pixel_ap"] for row in told["rows"]]
    assert found["change"] == pytest.approx(means[1] - means[0])
    assert "seconds" not in json.dumps(told)
    assert f"{found['sentence']} Note: {SAME_PAIRS}. The numbers are under" in readme(service, job)


@pytest.fixture(scope="module")
def typed_library_adapter(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_typed_by_library(base, tmp_path_factory.mktemp("typed"))


def evaluated_types(service: Service, made: Path, held_out: HeldOut) -> dict[str, Any]:
    """What a dataset of two types says of its evaluation."""
    adapter = service.succeeded_adapter(made, held_out=held_out, types=TYPES)
    asked = {"defects": {"break": 2, "crack": 2}, "evaluation": {"profile": "quick", "seeds": 2}}
    job = service.create_job(adapter, 4, **asked)
    run_generation(job, service.context(profiles=TINY_PROFILES))
    told = description(service, job)["evaluation"]
    assert told["verdict"] == verdict(succeeded(service, job))
    return dict(told)


def test_types_that_held_out_photographs_name_are_measured_apart(service: Service, typed_library_adapter: Path) -> None:
    told = evaluated_types(service, typed_library_adapter, HeldOut(defects=["break", "crack"]))
    before, after = told["rows"]
    for kind in ("break", "crack"):
        change = after["by_type"][kind]["pixel_ap"] - before["by_type"][kind]["pixel_ap"]
        assert told["verdict"]["by_type"][kind]["change"] == pytest.approx(change)
    change = after["mean"]["accuracy"] - before["mean"]["accuracy"]
    assert told["verdict"]["accuracy"]["change"] == pytest.approx(change)
    assert told["verdict"]["note"] == SAME_PAIRS


def test_types_that_are_measured_together_are_said_to_be(service: Service, typed_library_adapter: Path) -> None:
    told = evaluated_types(service, typed_library_adapter, HeldOut())
    assert told["verdict"]["note"] == f"{TOGETHER}; {SAME_PAIRS}"
    assert TOGETHER in told["notes"]
    assert "by_type" not in told["verdict"]
    assert "by_type" not in told["rows"][0]


def test_a_part_that_seems_to_train_and_test_is_told_with_the_verdict(service: Service, library_adapter: Path) -> None:
    """The same photograph a little brighter is another file, and shows the same part."""
    again = replace(PAIRS[0], name="again", image=PAIRS[0].image // 2 + 120)
    adapter = service.succeeded_adapter(library_adapter, held_out=HeldOut([again, drawn_pair(11)]))
    job = evaluated(service, adapter)
    run_generation(job, service.context(profiles=TINY_PROFILES))
    note = verdict(succeeded(service, job))["note"]
    assert "these look like one part that trains and tests: crack" in note
    assert note.endswith(f"; {SAME_PAIRS}")


def test_without_one_the_dataset_is_the_librarys(
    service: Service, measurable: str, base: Base, library_adapter: Path, tmp_path: Path
) -> None:
    job = service.create_job(measurable, NUM_PAIRS, evaluation=None)
    run_generation(job, service.context())
    assert "verdict" not in (succeeded(service, job).result or {})
    assert service.dataset(job) == dataset_by_library(base, library_adapter, tmp_path / "dataset.zip", NUM_PAIRS)


def test_what_is_held_out_is_not_trained_on(service: Service) -> None:
    """The adapter's card names every photograph that it was trained on."""
    adapter = service.create_adapter(held_out=HeldOut())
    run_training(adapter, service.context())
    record = service.record(adapter)
    assert record.state is State.SUCCEEDED, record.error
    assert record.result is not None
    assert [each["name"] for each in record.result["card"]["data"]] == [pair.name for pair in PAIRS]


def test_an_evaluation_that_is_handed_over_goes_on_after_its_last_row(
    service: Service, measurable: str, redis_server: RedisServer
) -> None:
    whole = evaluated(service, measurable)
    run_generation(whole, service.context(profiles=TINY_PROFILES))
    job = evaluated(service, measurable)
    with asked_to_end_at(service, redis_server, FIRST_ROW_KEPT) as context:
        run_generation(job, replace(context, profiles=TINY_PROFILES))
    assert service.record(job).state is State.QUEUED
    before = rows_kept(service, job)
    assert set(before) == {"0/real"}
    run_generation(job, service.context(profiles=TINY_PROFILES))
    succeeded(service, job)
    after = rows_kept(service, job)
    assert after["0/real"] == before["0/real"]
    assert after["0/real+generated"].rpartition("-")[2] != before["0/real"].rpartition("-")[2]
    assert service.dataset(job) == service.dataset(whole)


def rows_kept(service: Service, job: str) -> dict[str, str]:
    return dict((service.record(job).checkpoint or {}).get("evaluation", {}))


def work(settings: Settings, job: str) -> None:
    """A worker process of its own."""
    redis = connect(settings)
    service = Service(settings, RecordStore(redis, settings), ObjectStore(settings), Dispatcher(settings, redis))
    run_generation(job, service.context(profiles=TINY_PROFILES))


def test_the_time_left_counts_down_within_a_row() -> None:
    """A row is two detectors; what is measured beside their training takes little."""
    reports = [Progress("detector", done, 4, "steps") for done in (2, 4)]
    assert list(_shares([*reports, Progress("test", 1, 1, "photographs"), *reports], 2)) == [0.25, 0.5, 0.5, 0.75, 1.0]


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("reconciling")
def test_a_killed_evaluation_is_gone_on_with(service: Service, measurable: str, s3_server: S3Server) -> None:
    """Its second row never arrives, so that it cannot have ended by then."""
    job = evaluated(service, measurable)
    with held_back(s3_server.port, Held(b"PUT ", b"/evaluation/0-real%2B")) as relay:
        there = service.settings.model_copy(update={"s3_endpoint_url": f"http://127.0.0.1:{relay.port}"})
        process = multiprocessing.get_context("spawn").Process(target=work, args=(there, job))
        process.start()
        wait_until(lambda: bool(rows_kept(service, job)))
        process.kill()
        process.join()
    before = rows_kept(service, job)
    assert set(before) == {"0/real"}
    wait_until(lambda: service.record(job).state is State.QUEUED)
    run_generation(job, service.context(profiles=TINY_PROFILES))
    assert verdict(succeeded(service, job))["status"] == "measured"
    assert rows_kept(service, job)["0/real"] == before["0/real"]
    assert service.record(job).attempt == 2


def test_a_job_is_cancelled_while_it_is_evaluated(service: Service, measurable: str, redis_server: RedisServer) -> None:
    job = evaluated(service, measurable)
    run = partial(run_generation, job)
    seconds = cancelled_in(service, redis_server, job, "evaluate", run, profiles=ENDLESS)
    assert seconds < WITHIN
    assert service.record(job).state is State.CANCELLED
    assert service.folders(job) == set()


def test_other_workers_do_not_wait_for_an_evaluation(service: Service, measurable: str, s3_server: S3Server) -> None:
    job = evaluated(service, measurable)
    held = Held(b"PUT ", b"/evaluation/")
    with held_back(s3_server.port, held) as relay:
        context = service.context(s3_endpoint_url=f"http://127.0.0.1:{relay.port}", profiles=TINY_PROFILES)
        leader = threading.Thread(target=run_generation, args=(job, context))
        leader.start()
        wait_until(held.reached.is_set)
        run_generation(job, service.context(profiles=TINY_PROFILES))
        assert service.record(job).state is State.RUNNING
        held.let_go.set()
        leader.join()
    assert verdict(succeeded(service, job))["status"] == "measured"


FAULTY: dict[str, tuple[Callable[[], HeldOut | None], str]] = {
    "none": (lambda: None, "the adapter has no held-out pairs"),
    "also trained on": (lambda: HeldOut([drawn_pair(0)]), "are the same picture"),
}


@pytest.mark.parametrize("case", FAULTY)
def test_an_evaluation_that_fails_leaves_the_dataset(service: Service, library_adapter: Path, case: str) -> None:
    held_out, phrase = FAULTY[case]
    job = evaluated(service, service.succeeded_adapter(library_adapter, held_out=held_out()))
    run_generation(job, service.context(profiles=TINY_PROFILES))
    found = verdict(succeeded(service, job))
    assert found["status"] == "not_measured"
    assert phrase in found["detail"]
    told = description(service, job)
    assert told["evaluation"] == {"profile": "quick", "seeds": [0], "verdict": found}
    assert told["num_pairs"] == NUM_PAIRS


def test_a_cpu_does_not_measure_for_days(service: Service, measurable: str) -> None:
    """The pairs are delivered, and the verdict says what to ask for instead."""
    job = evaluated(service, measurable, profile="paper")
    run_generation(job, service.context())
    reason = "the profile paper needs a GPU; this worker computes on a CPU: ask for quick or cpu"
    found = verdict(succeeded(service, job))
    assert found == {"status": "not_measured", "detail": reason}
    told = description(service, job)
    assert told["evaluation"] == {"profile": "paper", "seeds": [0], "verdict": found}
    assert told["num_pairs"] == NUM_PAIRS
    assert f"not measured: {reason}." in readme(service, job)


def test_even_a_mistake_of_ours_leaves_the_dataset(service: Service, measurable: str) -> None:
    listed = json.loads(service.objects.get(object_keys.inputs(measurable)))
    listed["held_out_masks"].pop()
    service.objects.put(object_keys.inputs(measurable), json.dumps(listed).encode(), "application/json")
    job = evaluated(service, measurable)
    run_generation(job, service.context(profiles=TINY_PROFILES))
    found = verdict(succeeded(service, job))
    assert found == {"status": "not_measured", "detail": "an internal error occurred: ValueError"}


def test_the_last_attempt_leaves_out_what_ended_those_before(
    service: Service, measurable: str, redis_server: RedisServer
) -> None:
    job = evaluated(service, measurable)
    with asked_to_end_at(service, redis_server, b'"stage": "evaluate"') as context:
        run_generation(job, replace(context, profiles=TINY_PROFILES))
    assert service.record(job).state is State.QUEUED
    run_generation(job, service.context(max_attempts=1, profiles=TINY_PROFILES))
    found = verdict(succeeded(service, job))
    assert found["status"] == "not_measured"
    assert "the last 1 starts" in found["detail"]
