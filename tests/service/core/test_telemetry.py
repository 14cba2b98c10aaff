"""What is counted of the object store, of Redis and of records that end, on real servers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from botocore.exceptions import ClientError
from prometheus_client import CollectorRegistry, generate_latest
from redis import Redis
from redis.exceptions import RedisError, ResponseError

from service.core.connections import connect, connect_async
from service.core.object_keys import Kind, new_id
from service.core.record import State
from service.core.records.store import RecordStore
from service.core.storage import MissingObject, ObjectStore, StorageError
from service.core.telemetry import DiskCollector, Telemetry
from tests.support.network import Passage, between
from tests.support.scraping import Scraped
from tests.support.servers import MakeSettings, RedisServer, S3Server


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry(CollectorRegistry())


def told(telemetry: Telemetry) -> Scraped:
    return Scraped(generate_latest(telemetry.registry).decode())


def test_all_that_can_be_known_begins_at_zero(telemetry: Telemetry) -> None:
    found = told(telemetry)
    ends = {(labels["kind"], labels["outcome"]) for labels in found.labels("records_finished_total")}
    assert ends == {(kind, outcome) for kind in Kind for outcome in ("succeeded", "failed", "cancelled")}
    assert [labels["kind"] for labels in found.labels("poisoned_total")] == list(Kind)
    assert found.value("records_finished_total") == found.value("poisoned_total") == 0


def test_operations_of_the_store_are_timed_and_what_is_missing_is_no_error(
    server_settings: MakeSettings, telemetry: Telemetry, tmp_path: Path
) -> None:
    store = ObjectStore(server_settings(), telemetry)
    store.ensure_bucket()
    (tmp_path / "file").write_bytes(b"content")
    store.put("a/bytes", b"content")
    store.put("a/file", tmp_path / "file")
    assert store.get("a/file") == b"content"
    with pytest.raises(MissingObject):
        store.get("a/nothing")
    store.close()
    found = told(telemetry)
    assert found.value("s3_operation_seconds_count", operation="PutObject") == 2
    assert found.value("s3_operation_seconds_count", operation="GetObject") == 2
    assert found.value("s3_operation_seconds_sum", operation="PutObject") > 0
    assert found.value("s3_errors_total") == 0


def test_failures_of_the_store_are_counted_by_their_code(
    server_settings: MakeSettings, s3_server: S3Server, telemetry: Telemetry
) -> None:
    with between(s3_server, lambda _, __: Passage.ASTRAY) as endpoint:
        store = ObjectStore(server_settings(s3_endpoint_url=endpoint), telemetry)
        with pytest.raises(StorageError):
            store.ready()
        store.close()
    assert told(telemetry).value("s3_errors_total", operation="HeadBucket", code="500") == 1
    stranger = ObjectStore(server_settings(s3_secret_access_key="not-the-secret-of-this-key"), telemetry)
    with pytest.raises(ClientError):
        stranger.put("a", b"content")
    stranger.close()
    s3_server.stop()
    store = ObjectStore(server_settings(), telemetry)
    with pytest.raises(StorageError):
        store.ready()
    store.close()
    found = told(telemetry)
    assert found.value("s3_errors_total", operation="PutObject") == 1
    assert found.value("s3_errors_total", operation="HeadBucket", code="EndpointConnectionError") == 1


def test_commands_are_timed_by_name(redis_settings: MakeSettings, telemetry: Telemetry) -> None:
    settings = redis_settings()
    with connect(settings, telemetry) as client:
        client.set("a", "1")
        assert client.get("a") == "1"
        RecordStore(client, settings).states.counts()
        assert RecordStore(client, settings).records.request_cancel(new_id(Kind.JOB)) is None
        with pytest.raises(ResponseError):
            client.lpush("a", "b")
    found = told(telemetry)
    for command in ("set", "get", "pipeline", "lpush"):
        assert found.value("redis_operation_seconds_count", command=command) == 1
    assert found.value("redis_operation_seconds_count", command="script") >= 1
    assert found.value("redis_errors_total", error="ResponseError") == 1
    assert found.value("redis_errors_total") == 1  # a script's first run is no error


def test_a_redis_that_is_away_is_counted(
    redis_settings: MakeSettings, redis_server: RedisServer, telemetry: Telemetry
) -> None:
    redis_server.kill()
    with connect(redis_settings(), telemetry) as client, pytest.raises(RedisError):
        client.get("a")
    assert told(telemetry).value("redis_errors_total", error="ConnectionError") == 1


def test_commands_of_coroutines_are_timed(redis_settings: MakeSettings, telemetry: Telemetry) -> None:
    async def get() -> Any:
        async with connect_async(redis_settings(), telemetry, 4) as client:
            return await cast(Any, client.get("a"))

    assert asyncio.run(get()) is None
    assert told(telemetry).value("redis_operation_seconds_count", command="get") == 1


def created(store: RecordStore, kind: Kind) -> str:
    return store.submissions.create(kind, new_id(kind), "me", {"num_pairs": 4})[0].id


def claimed(store: RecordStore, kind: Kind) -> str:
    record = created(store, kind)
    assert store.claims.claim(record, "worker")
    return record


def cancelling(store: RecordStore) -> str:
    record = claimed(store, Kind.JOB)
    assert store.records.request_cancel(record) is State.CANCELLING
    return record


def until_dead(taken: Callable[[], object]) -> None:
    """Repeat what can only be done once a lease is dead."""
    while not taken():
        pass


Ending = Callable[[RecordStore], object]

ENDINGS: dict[str, tuple[Ending, Kind, State]] = {
    "succeeded": (
        lambda store: store.claims.succeed(claimed(store, Kind.ADAPTER), "worker", {}, 1),
        Kind.ADAPTER,
        State.SUCCEEDED,
    ),
    "failed": (
        lambda store: store.claims.fail(claimed(store, Kind.JOB), "worker", {"code": "a"}),
        Kind.JOB,
        State.FAILED,
    ),
    "failed while cancelling": (
        lambda store: store.claims.fail(cancelling(store), "worker", {"code": "a"}),
        Kind.JOB,
        State.CANCELLED,
    ),
    "cancelled by its worker": (
        lambda store: store.claims.mark_cancelled(cancelling(store), "worker"),
        Kind.JOB,
        State.CANCELLED,
    ),
    "given back while cancelling": (
        lambda store: store.claims.release(cancelling(store), "worker"),
        Kind.JOB,
        State.CANCELLED,
    ),
    "cancelled while queued": (
        lambda store: store.records.request_cancel(created(store, Kind.ADAPTER)),
        Kind.ADAPTER,
        State.CANCELLED,
    ),
}


@pytest.mark.parametrize("way", ENDINGS)
def test_an_end_is_counted_once(
    redis_client: Redis, redis_settings: MakeSettings, telemetry: Telemetry, way: str
) -> None:
    end, kind, state = ENDINGS[way]
    assert end(RecordStore(redis_client, redis_settings(lease_seconds=60), telemetry))
    found = told(telemetry)
    assert found.value("records_finished_total", kind=kind, outcome=state) == 1
    assert found.value("records_finished_total") == 1
    assert found.value("poisoned_total") == 0


def test_what_does_not_end_is_not_counted(
    redis_client: Redis, redis_settings: MakeSettings, telemetry: Telemetry
) -> None:
    store = RecordStore(redis_client, redis_settings(lease_seconds=60), telemetry)
    job = claimed(store, Kind.JOB)
    assert not store.claims.succeed(job, "another", {}, 1)
    assert not store.claims.fail(job, "another", {})
    assert not store.claims.mark_cancelled(job, "worker")
    assert store.claims.release(job, "worker")
    assert store.records.request_cancel(job) is State.CANCELLED
    assert store.records.request_cancel(job) is State.CANCELLED
    assert told(telemetry).value("records_finished_total") == 1


def reaped(store: RecordStore, job: str) -> None:
    until_dead(lambda: store.upkeep.reap(job))


def claimed_again(store: RecordStore, job: str) -> None:
    until_dead(lambda: store.claims.claim(job, "another") is None and store.records.get(job).state.is_terminal)  # type: ignore[union-attr]


@pytest.mark.parametrize("found_by", [reaped, claimed_again])
def test_a_record_given_up_is_poisoned(
    redis_client: Redis,
    redis_settings: MakeSettings,
    telemetry: Telemetry,
    found_by: Callable[[RecordStore, str], None],
) -> None:
    store = RecordStore(redis_client, redis_settings(lease_seconds=0.05, max_deaths=1), telemetry)
    found_by(store, claimed(store, Kind.JOB))
    found = told(telemetry)
    assert found.value("poisoned_total", kind="job") == 1
    assert found.value("records_finished_total", kind="job", outcome="failed") == 1


def test_a_job_is_poisoned_by_a_block(redis_client: Redis, redis_settings: MakeSettings, telemetry: Telemetry) -> None:
    """Taken by one worker after the other, each of which leaves it."""
    store = RecordStore(redis_client, redis_settings(lease_seconds=60, max_attempts=1), telemetry)
    job = claimed(store, Kind.JOB)
    assert store.claims.join(job, "another")
    assert store.blocks.claim(job, "worker", ahead=1) == 0
    assert store.claims.retry(job, "worker")
    assert store.blocks.claim(job, "another", ahead=1) is None
    assert told(telemetry).value("poisoned_total", kind="job") == 1


def test_the_disk_is_told_before_its_folder_is_made(tmp_path: Path) -> None:
    free, size = DiskCollector(tmp_path / "spool" / "yet to be").collect()
    assert 0 < free.samples[0].value < size.samples[0].value
