"""Prepares a worker's child process; all of this needs torch, which the parent does not load."""

from __future__ import annotations

import torch

from model.quality.gate import RejectReason
from service.core.settings import Settings
from service.core.telemetry import set_build_info
from worker.monitoring.gpu import GpuWatch
from worker.monitoring.metrics import process_metrics


def begin_watching(settings: Settings) -> None:
    """Publish the versions of torch and CUDA, and start measuring the GPUs."""
    metrics = process_metrics()
    cuda = torch.version.cuda or ""
    set_build_info(metrics.telemetry.registry, "worker", settings.revision, torch=torch.__version__, cuda=cuda)
    for reason in RejectReason:
        metrics.rejected.labels(reason)
    if torch.cuda.is_available():
        GpuWatch(metrics).start()
