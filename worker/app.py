"""Defines the Celery application of the workers: `celery -A worker.app worker -Q train,generate -c 1`.

The parent process imports nothing heavy and never touches a GPU; models live in its one child, which is forked, or
spawned where PAIRFORGE_DEVICE asks for CUDA (a forked child cannot use it).
"""

from __future__ import annotations

import sys
from typing import Any

from celery import Celery
from celery.signals import celeryd_init, worker_ready, worker_shutdown, worker_shutting_down

from model.runtime import switches
from model.runtime.threads import limit_spinning
from service.core.connections import connect
from service.core.messaging import celery_config
from service.core.settings import Settings, load_settings
from worker.bases import announce_bases
from worker.compiling import log_compiling
from worker.monitoring.heartbeat import Heartbeat, ask_children_to_stop, forget_stop
from worker.monitoring.server import MetricsServer, begin_counting, serve_metrics

START_SECONDS = 120
"""Seconds that a spawned child may take to import the application."""


def make_app(settings: Settings) -> Celery:
    """Make the application, with the workers' settings added to those shared with the senders."""
    app = Celery("pairforge", include=["worker.processes", "worker.tasks", "worker.dead_child"])
    app.conf.update(celery_config(settings))
    app.conf.update(
        worker_pool="prefork",
        worker_concurrency=1,
        worker_pool_start_method="spawn" if settings.device.startswith("cuda") else "fork",
        worker_proc_alive_timeout=START_SECONDS,
    )
    return app


switches.check()
limit_spinning()  # children inherit it
app = make_app(load_settings())

_heartbeat: list[Heartbeat] = []
_metrics: list[MetricsServer] = []


@celeryd_init.connect
def _begin(instance: Any = None, **_: Any) -> None:
    instance.quiet = True  # the banner is not in the format of log events
    try:
        forget_stop()
    except OSError as error:
        sys.exit(str(error))  # Celery would only log the error, and start a worker that cannot be asked to stop
    begin_counting()


@worker_ready.connect
def _announce(sender: Any = None, **_: Any) -> None:
    settings = load_settings()
    log_compiling(settings)
    if (server := serve_metrics(settings)) is not None:
        _metrics.append(server)
    redis = connect(settings)
    announce_bases(redis, settings)
    heartbeat = Heartbeat(redis, sender.hostname)
    heartbeat.start()
    _heartbeat.append(heartbeat)


@worker_shutting_down.connect
def _hand_over(**_: Any) -> None:
    ask_children_to_stop()


@worker_shutdown.connect
def _leave(**_: Any) -> None:
    for heartbeat in _heartbeat:
        heartbeat.stop()
    for server in _metrics:
        server.stop()
    forget_stop()
