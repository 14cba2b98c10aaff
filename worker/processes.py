"""Prepares each process of a worker when it starts. Spawned children import this with the tasks, not `worker.app`."""

from __future__ import annotations

import importlib
import threading
from typing import Any

from celery.signals import celeryd_init, setup_logging, worker_process_init

from model.runtime.library_logging import silence_imports
from model.runtime.malloc import keep_freed_memory
from service.core.logs import configure_logs
from service.core.settings import load_settings
from worker.monitoring.metrics import process_metrics


@celeryd_init.connect
@setup_logging.connect
def _configure_logs(**_: Any) -> None:
    """Configure logging before Celery logs, and again in place of Celery's own configuration."""
    configure_logs(load_settings())


@worker_process_init.connect
def _prepare_child(**_: Any) -> None:
    silence_imports()
    keep_freed_memory()
    process_metrics().begin()
    # Imported while the first task is on its way, which would otherwise wait for it.
    threading.Thread(target=_import_heavy, name="import", daemon=True).start()


def _import_heavy() -> None:
    importlib.import_module("worker.training.run")
    importlib.import_module("worker.generation.run")
    importlib.import_module("worker.child").begin_watching(load_settings())
