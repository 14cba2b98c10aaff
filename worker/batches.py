"""Sampling in as large batches as the device's memory has room for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import structlog
import torch

from model.sampling import SamplingConfig
from model.types import Candidate

log = structlog.stdlib.get_logger(__name__)


def sample_fitting(config: SamplingConfig, sample: Callable[[SamplingConfig], Iterable[Candidate]]) -> list[Candidate]:
    """All candidates of `sample(config)`, in smaller batches where memory is short; only their last bits may differ.

    Raises:
        torch.OutOfMemoryError: there is no room for one at a time.
    """
    while True:
        try:
            return list(sample(config))
        except torch.OutOfMemoryError:
            if config.batch == 1:
                raise
            config = replace(config, batch=config.batch // 2)
            log.warning("batch_halved", batch=config.batch)
            torch.cuda.empty_cache()
