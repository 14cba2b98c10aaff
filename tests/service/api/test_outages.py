"""Servers that die, or fail now and then, while an upload is stored: it is accepted whole, or refused with nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from redis import Redis

from service.core import api_keys, object_keys
from service.core.records.store import RecordStore
from service.core.settings import Settings
from service.core.storage import ObjectStore
from tests.service.api.conftest import serving
from tests.service.api.uploads import pairs
from tests.support.network import Fault, Passage, between, every
from tests.support.relay import relayed
from tests.support.servers import MakeSettings, RedisServer, S3Server

pytestmark = pytest.mark.timeout(300)

FORM = {"name": "scratches"}
AGAIN = {"Idempotency-Key": "again"}


@pytest.fixture
def own(server_settings: MakeSettings, tmp_path: Path) -> Settings:
    """Settings for servers of the test's own."""
    return server_settings(spool_dir=tmp_path / "spool", reconcile_seconds=0.5)


@contextmanager
def reached(own: Settings, server: S3Server, redis: Redis, fault: Fault) -> Iterator[httpx2.Client]:
    """A client of an API whose way to the object store has a fault."""
    headers = {"Authorization": f"Bearer {api_keys.create_key(redis, 'test')}"}
    with (
        between(server, fault) as endpoint,
        serving(own.model_copy(update={"s3_endpoint_url": endpoint})) as url,
        httpx2.Client(base_url=url, headers=headers, timeout=200) as client,
    ):
        yield client


def post(client: httpx2.Client) -> httpx2.Response:
    return client.post("/v1/adapters", data=FORM, files=pairs(), headers=AGAIN)


def amid_upload(then: Callable[[], Passage]) -> Fault:
    """Something that happens when the second picture of an upload is about to be stored."""
    happened = False

    def fault(method: str, path: str) -> Passage:
        nonlocal happened
        if happened or method != "PUT" or not path.endswith("/inputs/images/001.png"):
            return Passage.WHOLE
        happened = True
        return then()

    return fault


def test_a_store_that_fails_now_and_then_loses_no_upload(
    own: Settings, s3_server: S3Server, redis_client: Redis, objects: ObjectStore
) -> None:
    with reached(own, s3_server, redis_client, every(3)) as client:
        answer = post(client)
        assert answer.status_code == 202, answer.text
    stored = {entry.key for entry in objects.list("adapters/")}
    adapter = answer.json()["id"]
    assert len(stored) == len(pairs()) + 1
    assert {object_keys.inputs(adapter), object_keys.upload(adapter, object_keys.Upload.MASKS, 1)} < stored


@pytest.mark.parametrize("which", ["redis_server", "s3_server"])
def test_a_server_that_is_started_again_meanwhile_goes_unnoticed(
    which: str, request: pytest.FixtureRequest, own: Settings, s3_server: S3Server, redis_client: Redis
) -> None:
    server: RedisServer | S3Server = request.getfixturevalue(which)

    def restarted() -> Passage:
        server.kill()
        server.start()
        return Passage.ASTRAY

    with reached(own, s3_server, redis_client, amid_upload(restarted)) as client:
        answer = post(client)
        assert answer.status_code == 202, answer.text
        assert [adapter["id"] for adapter in client.get("/v1/adapters").json()["data"]] == [answer.json()["id"]]


@pytest.mark.parametrize("which", ["redis_server", "s3_server"])
def test_a_server_that_dies_meanwhile_is_told_and_nothing_stays(
    which: str,
    request: pytest.FixtureRequest,
    own: Settings,
    s3_server: S3Server,
    redis_client: Redis,
    objects: ObjectStore,
) -> None:
    server: RedisServer | S3Server = request.getfixturevalue(which)

    def killed() -> Passage:
        server.kill()
        return Passage.WHOLE

    with reached(own, s3_server, redis_client, amid_upload(killed)) as client:
        answer = post(client)
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert answer.headers["content-type"] == "application/problem+json"
        assert int(answer.headers["retry-after"]) > 0
        server.start()
        assert client.get("/v1/adapters").json()["data"] == []
        for left in {entry.key.split("/")[1] for entry in objects.list("adapters/")}:
            RecordStore(redis_client, own).submissions.reserve(left, seconds=0)  # its time to become a record is over
        deadline = time.monotonic() + 120
        while objects.list("adapters/"):
            assert time.monotonic() < deadline, "an upload without a record stays"
            time.sleep(0.1)
        assert own.spool_dir is not None
        assert list(own.spool_dir.iterdir()) == []
        again = post(client)
        assert again.status_code == 202, again.text
        assert len(client.get("/v1/adapters").json()["data"]) == 1
    assert len(objects.list("adapters/")) == len(pairs()) + 1


def test_what_was_accepted_keeps_its_pictures_though_redis_dies_before_it_can_say_so(
    own: Settings, s3_server: S3Server, redis_server: RedisServer, redis_client: Redis, objects: ObjectStore
) -> None:
    def after_the_record(sent: bytes, answer: bytes) -> int | None:
        created = b"EVALSHA" in sent and FORM["name"].encode() in sent and not answer.startswith(b"-NOSCRIPT")
        return 0 if created and not relay.is_cut else None

    with relayed(redis_server.port, after_the_record) as relay:
        chosen = own.model_copy(update={"redis_url": f"redis://127.0.0.1:{relay.port}/0"})
        with reached(chosen, s3_server, redis_client, lambda *_: Passage.WHOLE) as client:
            answer = post(client)
            assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
            relay.mend()
            accepted = [adapter["id"] for adapter in client.get("/v1/adapters").json()["data"]]
            assert len(accepted) == 1
            assert len(objects.list(object_keys.prefix(accepted[0]))) == len(pairs()) + 1
            again = post(client)
            assert (again.status_code, again.json()["id"]) == (202, accepted[0])
    assert len(objects.list("adapters/")) == len(pairs()) + 1
