"""Real servers and a tiny base."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from model.diffusion.base import SHIPPED, Base, load_base
from service.core.connections import connect
from service.core.messaging import Dispatcher
from service.core.reconcile import reconcile, reconcile_until
from service.core.records.store import RecordStore
from service.core.storage import ObjectStore
from tests.support.servers import MakeSettings
from tests.worker.celery_worker import CeleryWorker
from tests.worker.stored import Service, train_by_library


@pytest.fixture
def service(
    server_settings: MakeSettings,
    tiny_base: Path,
    tmp_path: Path,
) -> Iterator[Service]:
    spool = tmp_path / "spool"
    spool.mkdir()
    chosen = server_settings(
        base=str(tiny_base),
        device="cpu",
        spool_dir=spool,
        lease_seconds=3.0,
        reconcile_seconds=0.5,
    )
    redis = connect(chosen)
    made = Service(chosen, RecordStore(redis, chosen), ObjectStore(chosen), Dispatcher(chosen, redis))
    made.objects.ensure_bucket()
    yield made
    made.dispatcher.close()
    made.objects.close()
    redis.close()


@pytest.fixture
def reconciling(service: Service) -> Iterator[None]:
    """The reconciler at its work, as in the API."""
    ended = threading.Event()

    def one_round() -> bool:
        return reconcile(service.store, service.dispatcher, service.objects, service.settings)

    thread = threading.Thread(target=reconcile_until, args=(ended, one_round, service.settings.reconcile_seconds))
    thread.start()
    yield
    ended.set()
    thread.join()


@pytest.fixture
def start_worker(service: Service, tmp_path: Path) -> Iterator[Callable[..., CeleryWorker]]:
    """Starts Celery workers, with other settings if need be, and ends them with the test."""
    started: list[CeleryWorker] = []

    def start(name: str = "worker", **settings: object) -> CeleryWorker:
        worker = CeleryWorker(service.settings.model_copy(update=settings), tmp_path / "workers", name)
        worker.start()
        started.append(worker)
        return worker

    yield start
    for worker in started:
        worker.end()


@pytest.fixture(scope="session")
def tiny_base(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny base with a part network of its own, so that trainings adapt one."""
    folder = tmp_path_factory.mktemp("bases") / "with-part-network"
    shutil.copytree(tiny_base, folder)
    (folder / "u2net").mkdir(exist_ok=True)
    shutil.copy(SHIPPED / "mini" / "u2net" / "part.safetensors", folder / "u2net")
    return folder


@pytest.fixture(scope="session")
def base(tiny_base: Path) -> Base:
    return load_base(str(tiny_base))


@pytest.fixture(scope="session")
def library_adapter(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_by_library(base, tmp_path_factory.mktemp("library"))


@pytest.fixture
def adapter(service: Service, library_adapter: Path) -> str:
    """An adapter that succeeded, its files made by the library."""
    return service.succeeded_adapter(library_adapter)
