"""Where the device's memory is too small for a batch, smaller ones make the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from model.diffusion.base import Base
from service.core.record import State
from tests.worker.stored import Service, dataset_by_library
from worker.attempt.context import Context
from worker.generation.run import run_generation
from worker.training.run import run_training


def with_memory_for(context: Context, latents: int) -> list[int]:
    """Let the context's base run out of memory with more latents at once; the numbers that were tried."""
    tried: list[int] = []

    def allocate(module: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
        tried.append(len(inputs[0]))
        if len(inputs[0]) > latents:
            raise torch.OutOfMemoryError(f"no room for {len(inputs[0])} latents")

    base, _ = context.model_cache.base(None)
    base.unet.conv_in.register_forward_pre_hook(allocate)
    return tried


def test_a_job_goes_on_with_half_the_batch(
    service: Service, adapter: str, library_adapter: Path, base: Base, tmp_path: Path
) -> None:
    context = service.context()
    tried = with_memory_for(context, 4)  # a pair: two branches, with and without guidance
    job = service.create_job(adapter, 3)
    run_generation(job, context)
    assert service.record(job).state is State.SUCCEEDED
    assert max(tried) == 8
    expected = dataset_by_library(base, library_adapter, tmp_path / "expected.zip", 3)
    assert service.dataset(job) == expected


def test_a_training_goes_on_with_half_the_batch_twice_as_often(service: Service) -> None:
    context = service.context()
    tried = with_memory_for(context, 4)  # two pairs, each in two branches
    adapter = service.create_adapter(batch=4)
    run_training(adapter, context)
    record = service.record(adapter)
    assert record.state is State.SUCCEEDED
    assert record.result is not None
    assert tried[0] == 8
    training = record.result["card"]["config"]
    assert (training["batch"], training["accumulate"]) == (2, 2)


def test_what_does_not_fit_at_all_fails_with_a_reason(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.attempt.completion.PAUSE", 0.1)  # in which a machine may recover
    context = service.context(max_attempts=1)
    with_memory_for(context, 0)
    adapter = service.create_adapter(batch=1)
    for _ in range(2):  # the second finds that there was one try too many
        run_training(adapter, context)
    record = service.record(adapter)
    assert record.state is State.FAILED
    assert record.error is not None
    assert "ran out of memory, even with batches of one" in record.error["detail"]
