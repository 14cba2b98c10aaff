"""Serves a worker's metrics from the parent process, so that it answers while the child is busy.

PROMETHEUS_MULTIPROC_DIR must be set before the worker starts, since prometheus_client reads it when it is imported, in
spawned children too. Without it there is no endpoint.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry, Metric, ProcessCollector, start_http_server
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from service.core.settings import Settings
from service.core.telemetry import DiskCollector
from worker.monitoring.metrics import process_metrics

log = structlog.stdlib.get_logger(__name__)

FOLDER = "PROMETHEUS_MULTIPROC_DIR"


def begin_counting() -> None:
    """Create the folder, or delete files of an earlier worker from it. Call this before there are children."""
    if name := os.environ.get(FOLDER):
        folder = Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        for file in folder.glob("*.db"):
            file.unlink()
    # The parent's own metrics stay at 0, and show every name before a child has counted. Nothing else in this process
    # may count: prometheus_client's lock, if a thread held it at a fork, would stay locked in the child.
    process_metrics()


class MetricsServer:
    """Serves the counts of all processes of this worker.

    Args:
        port: port at `settings.metrics_host`.
        folder: folder of the counts.

    Raises:
        OSError: if the address is not available.
    """

    def __init__(self, settings: Settings, port: int, folder: Path) -> None:
        registry = CollectorRegistry()
        registry.register(_Counts(folder))
        registry.register(DiskCollector(settings.spool_dir or Path(tempfile.gettempdir())))
        ProcessCollector(pid=lambda: _working_process(folder), registry=registry)
        self._server, self._thread = start_http_server(port, settings.metrics_host, registry)

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def serve_metrics(settings: Settings) -> MetricsServer | None:
    """Start the endpoint if the settings ask for it; a worker works without it, too."""
    if settings.metrics_port is None:
        return None
    folder = os.environ.get(FOLDER)
    if folder is None:
        log.warning("metrics_not_served", missing=FOLDER)
        return None
    try:
        return MetricsServer(settings, settings.metrics_port, Path(folder))
    except OSError as error:
        log.warning("metrics_not_served", port=settings.metrics_port, error=repr(error))
        return None


class _Counts(MultiProcessCollector):
    """Collects all counts; for children that have ended, keeps counters and drops live gauges."""

    def __init__(self, folder: Path) -> None:
        super().__init__(None, str(folder))  # type: ignore[no-untyped-call]
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        for pid in _counting(self._folder):
            if not Path(f"/proc/{pid}").exists():
                mark_process_dead(pid, str(self._folder))  # type: ignore[no-untyped-call]
        return super().collect()  # type: ignore[no-untyped-call, no-any-return]


def _counting(folder: Path) -> set[int]:
    """Return the processes with live gauges: this one, its child, and children not yet known to have ended."""
    return {int(file.stem.rpartition("_")[2]) for file in folder.glob("gauge_live*.db")}


def _working_process(folder: Path) -> int:
    return max(_counting(folder) - {os.getpid()}, default=os.getpid(), key=_started)


def _started(pid: int) -> int:
    """Return when a process started, in ticks since boot; 0 if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
    except OSError:
        return 0
