"""A job with pairs to review, and the API to do it by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

import httpx2
import pytest

from service.core.record import State
from tests.service.api.conftest import serving
from tests.support.tiny_data import PERMISSIVE
from tests.worker.stored import Service
from worker.generation.run import run_generation


@pytest.fixture
def client(service: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx2.Client]:
    monkeypatch.setattr("service.api.auth.LOCAL", "me")  # whose records those of the service are
    chosen = service.settings.model_copy(update={"require_keys": False, "reconcile_seconds": 60.0})
    with serving(chosen) as url, httpx2.Client(base_url=f"{url}/v1", timeout=30) as client:
        yield client


@pytest.fixture
def job(service: Service, adapter: str) -> str:
    """A job of three pairs that has succeeded; it also has rejected candidates."""
    limits = {**asdict(PERMISSIVE), "max_disagreement": 43.0}
    job = service.create_job(adapter, 3, limits=limits, max_attempts=100, match_detail=False)
    run_generation(job, service.context())
    record = service.record(job)
    assert record.state is State.SUCCEEDED, record.error
    return job
