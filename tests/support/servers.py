"""Real servers for tests: Redis that loses nothing when killed, and an S3 server over a folder."""

from __future__ import annotations

import csv
import io
import os
import signal
import socket
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import pytest
from redis import Redis

from service.core.connections import connect
from service.core.messaging import Dispatcher
from service.core.records.store import RecordStore
from service.core.settings import Settings
from service.core.storage import ObjectStore

ACCESS_KEY, SECRET_KEY = "testaccesskey", "testsecretkey"
START_SECONDS = 20.0

IMPATIENT = {"retry_seconds": 0.2, "max_deaths": 3}
"""Settings with which failures end soon."""


class Server:
    """A process that listens on a port of the loopback device, and can be killed and started again."""

    def __init__(self, command: Callable[[int], list[str]], environment: dict[str, str], folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._command, self._environment, self._folder = command(self.port), environment, folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it accepts connections."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env={**os.environ, **self._environment}, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._listens():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self._command[0]} did not start:\n{(self._folder / 'log').read_text()}")
            time.sleep(0.02)

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """While the context lasts, it accepts connections and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(START_SECONDS)
            self._process = None

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True


class RedisServer(Server):
    """Redis; what it has answered is on disk."""

    def __init__(self, folder: Path) -> None:
        settings = ["--appendonly", "yes", "--appendfsync", "always", "--save", "", "--maxmemory-policy", "noeviction"]
        program = str(Path(sysconfig.get_path("scripts")) / "redis-server")

        def command(port: int) -> list[str]:
            return [program, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), *settings]

        super().__init__(command, {}, folder)
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        super().start()
        with Redis(port=self.port) as client:
            while client.info("persistence")["loading"]:
                time.sleep(0.02)


class S3Server(Server):
    """`rclone serve s3`; a bucket is a folder in `objects`."""

    def __init__(self, folder: Path) -> None:
        self.objects = folder / "objects"
        self.objects.mkdir()
        keys = io.StringIO()
        csv.writer(keys, lineterminator="").writerow([f"{ACCESS_KEY},{SECRET_KEY}"])
        environment = {"RCLONE_AUTH_KEY": keys.getvalue()}
        options = ["--config", "", "--cache-dir", str(folder / "cache"), "--no-cleanup"]
        program = str(Path(sysconfig.get_path("scripts")) / "rclone")

        def command(port: int) -> list[str]:
            return [program, "serve", "s3", "--addr", f"127.0.0.1:{port}", *options, str(self.objects)]

        super().__init__(command, environment, folder)
        self.url = f"http://127.0.0.1:{self.port}"


@pytest.fixture
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis of the test's own."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An S3 server of the test's own, without a bucket."""
    server = S3Server(tmp_path_factory.mktemp("s3"))
    server.start()
    yield server
    server.stop()


class MakeSettings(Protocol):
    def __call__(self, **changes: object) -> Settings: ...


@pytest.fixture
def redis_settings(redis_server: RedisServer) -> MakeSettings:
    """Settings for the test's Redis, with changes; leases are short."""

    def make(**changes: object) -> Settings:
        return Settings.model_validate({"redis_url": redis_server.url, "lease_seconds": 1.0, **IMPATIENT, **changes})

    return make


@pytest.fixture
def server_settings(redis_settings: MakeSettings, s3_server: S3Server) -> MakeSettings:
    """Settings for the test's Redis and S3, with changes."""
    store = {
        "s3_endpoint_url": s3_server.url,
        "s3_access_key_id": ACCESS_KEY,
        "s3_secret_access_key": SECRET_KEY,
    }
    return lambda **changes: redis_settings(**{**store, **changes})


@pytest.fixture
def redis_client(redis_settings: MakeSettings) -> Iterator[Redis]:
    with connect(redis_settings()) as client:
        yield client


@pytest.fixture
def store(redis_client: Redis, redis_settings: MakeSettings) -> RecordStore:
    """Records with leases of a second."""
    return RecordStore(redis_client, redis_settings())


@pytest.fixture
def dispatcher(redis_settings: MakeSettings) -> Iterator[Dispatcher]:
    settings = redis_settings()
    sender = Dispatcher(settings, connect(settings))
    yield sender
    sender.close()


@pytest.fixture
def objects(server_settings: MakeSettings) -> Iterator[ObjectStore]:
    """The object store with its bucket."""
    store = ObjectStore(server_settings())
    store.ensure_bucket()
    yield store
    store.close()
