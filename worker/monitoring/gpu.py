"""What the GPUs of a worker's child are doing, looked at every few seconds once it uses them."""

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
    """What takes most memory is what takes most from here on."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        for device in range(torch.cuda.device_count()):
            forget_most(torch.device("cuda", device))


class GpuWatch:
    """Looks from a thread of its own, for as long as the process lives."""

    def __init__(self, metrics: WorkerMetrics) -> None:
        self._metrics = metrics
        self._never = threading.Event()
        self._tells_utilization = True

    def start(self) -> None:
        threading.Thread(target=self._keep, name="gpu", daemon=True).start()

    def _keep(self) -> None:
        while not self._never.wait(LOOK_SECONDS):
            # Asking a device for its memory must not be what takes it into use.
            if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
                for device in range(torch.cuda.device_count()):
                    self._look(device)

    def _look(self, device: int) -> None:
        gpu, metrics = str(device), self._metrics
        metrics.gpu_allocated.labels(gpu).set(torch.cuda.memory_allocated(device))
        metrics.gpu_peak.labels(gpu).set(most_taken(torch.device("cuda", device)))
        if self._tells_utilization:
            try:
                metrics.gpu_utilization.labels(gpu).set(torch.cuda.utilization(device) / 100)
            except pynvml.NVMLError as error:  # a share of a GPU (MIG) has no figure of its own
                self._tells_utilization = False
                log.warning("gpu_utilization_unknown", gpu=gpu, error=repr(error))
