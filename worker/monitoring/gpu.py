"""Measures memory and load of the GPUs that a worker's child uses, every few seconds."""

from __future__ import annotations

import threading

import pynvml  # type: ignore[import-untyped]
import structlog
import torch

from model.runtime.cuda_memory import forget_most, most_taken
from worker.monitoring.metrics import WorkerMetrics

log = structlog.stdlib.get_logger(__name__)

LOOK_SECONDS = 5.0


def forget_peak() -> None:
    """Reset the peak of used memory."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        for device in range(torch.cuda.device_count()):
            forget_most(torch.device("cuda", device))


class GpuWatch:
    """Measures in another thread, as long as the process lives."""

    def __init__(self, metrics: WorkerMetrics) -> None:
        self._metrics = metrics
        self._never = threading.Event()
        self._has_utilization = True

    def start(self) -> None:
        threading.Thread(target=self._keep, name="gpu", daemon=True).start()

    def _keep(self) -> None:
        while not self._never.wait(LOOK_SECONDS):
            # Asking an unused device for its memory would initialise it.
            if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
                for device in range(torch.cuda.device_count()):
                    self._look(device)

    def _look(self, device: int) -> None:
        gpu, metrics = str(device), self._metrics
        metrics.gpu_allocated.labels(gpu).set(torch.cuda.memory_allocated(device))
        metrics.gpu_peak.labels(gpu).set(most_taken(torch.device("cuda", device)))
        if self._has_utilization:
            try:
                metrics.gpu_utilization.labels(gpu).set(torch.cuda.utilization(device) / 100)
            except pynvml.NVMLError as error:  # a GPU partition (MIG) has no figure of its own
                self._has_utilization = False
                log.warning("gpu_utilization_unknown", gpu=gpu, error=repr(error))
