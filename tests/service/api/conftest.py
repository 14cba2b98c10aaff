"""The API as it is run, on real servers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import httpx2
import pytest
import uvicorn
from pydantic import SecretStr
from redis import Redis
from starlette.types import ASGIApp

from service.api.http import LimitedProtocol
from service.core import api_keys, object_keys
from service.core.connections import connect
from service.core.records.store import RecordStore
from service.core.settings import Settings
from service.core.storage import ObjectStore
from service.main import create_app
from tests.service.api.uploads import Part, pairs
from tests.support.servers import ACCESS_KEY, SECRET_KEY, RedisServer, S3Server


@contextmanager
def serving(chosen: Settings, wrapped: Callable[[ASGIApp], ASGIApp] = lambda app: app) -> Iterator[str]:
    """The address of the API, which runs in a thread, wrapped in another app if need be."""
    config = uvicorn.Config(
        wrapped(create_app(chosen)),
        port=0,
        http=LimitedProtocol,
        log_level="warning",
        timeout_graceful_shutdown=1,
        lifespan="on",
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + 60
        while not server.started:
            assert thread.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(60)


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Settings for servers that the whole session shares."""
    redis_server, s3_server = RedisServer(tmp_path_factory.mktemp("redis")), S3Server(tmp_path_factory.mktemp("s3"))
    redis_server.start()
    s3_server.start()
    yield Settings(
        redis_url=redis_server.url,
        s3_endpoint_url=s3_server.url,
        s3_access_key_id=SecretStr(ACCESS_KEY),
        s3_secret_access_key=SecretStr(SECRET_KEY),
        spool_dir=tmp_path_factory.mktemp("spool"),
        reconcile_seconds=1.0,
    )
    redis_server.kill()
    s3_server.stop()


@pytest.fixture(scope="session")
def address(settings: Settings, storage: ObjectStore) -> Iterator[str]:
    with serving(settings) as url:
        yield url


@pytest.fixture(scope="session")
def redis(settings: Settings) -> Iterator[Redis]:
    client = connect(settings)
    yield client
    client.close()


@pytest.fixture(scope="session")
def store(redis: Redis, settings: Settings) -> RecordStore:
    return RecordStore(redis, settings)


@pytest.fixture(scope="session")
def storage(settings: Settings) -> ObjectStore:
    storage = ObjectStore(settings)
    storage.ensure_bucket()
    return storage


@pytest.fixture
def new_client(address: str, redis: Redis) -> Iterator[Callable[..., httpx2.Client]]:
    """Makes clients, each with a key of its own."""
    made: list[httpx2.Client] = []

    def make(url: str = address) -> httpx2.Client:
        headers = {"Authorization": f"Bearer {api_keys.create_key(redis, 'test')}"}
        made.append(httpx2.Client(base_url=url, headers=headers, timeout=60))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture
def client(new_client: Callable[..., httpx2.Client]) -> httpx2.Client:
    return new_client()


def trained(client: httpx2.Client, store: RecordStore, more: Sequence[Part] = (), **fields: str) -> str:
    """The id of a client's adapter that has succeeded, as far as records tell."""
    answer = client.post("/v1/adapters", data={"name": "scratches", **fields}, files=[*pairs(), *more])
    return succeeded(store, answer.json()["id"])


def succeeded(store: RecordStore, adapter: str, card: Mapping[str, Any] = MappingProxyType({"version": "1"})) -> str:
    """The id of an adapter, which has succeeded from now on."""
    assert store.claims.claim(adapter, "worker")
    artifact, sample = object_keys.artifact(adapter, "worker"), object_keys.sample(adapter, 5, "worker")
    files = [{"path": "masks/card.json", "bytes": 2, "sha256": "0" * 64}]
    result = {"card": dict(card), "loss": [[1, 0.5]], "bytes": 10, "request": {}}
    result |= {"samples": {"5": sample}, "artifact": artifact, "files": files}
    assert store.claims.succeed(adapter, "worker", result, 10)
    return adapter


def finished_job(
    client: httpx2.Client, store: RecordStore, storage: ObjectStore, dataset: bytes = b"zip", preview: bytes = b"png"
) -> str:
    """The id of a client's job that has succeeded, with a dataset of three bytes unless another is given."""
    answer = client.post("/v1/jobs", json={"adapter_id": trained(client, store), "num_pairs": 2})
    return finished(store, storage, answer.json()["id"], dataset, preview)


def finished(
    store: RecordStore, storage: ObjectStore, job: str, dataset: bytes = b"zip", preview: bytes = b"png"
) -> str:
    """The id of a job, which has succeeded from now on."""
    assert store.claims.claim(job, "worker")
    assert store.blocks.claim_judge(job, "worker")
    stored = {"dataset": object_keys.dataset(job, "worker"), "preview": object_keys.preview(job, "worker")}
    storage.put(stored["dataset"], dataset, "application/zip")
    storage.put(stored["preview"], preview, "image/png")
    counts = {"accepted": 2, "rejected": {"empty": 1}, "attempts": 3}
    result = {
        "name": object_keys.dataset_name("scratches", job),
        "bytes": 3,
        "sha256": "0" * 64,
        "counts": counts,
        "request": {},
        **stored,
    }
    assert store.claims.succeed(job, "worker", result, 6)
    return job
