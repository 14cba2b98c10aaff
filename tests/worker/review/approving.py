"""What tests do with reviewed pairs."""

from __future__ import annotations

import io
from typing import Any
from zipfile import ZipFile

import httpx2

from service.core.record import State
from tests.worker.stored import Service
from worker.generation.run import run_generation


def entries(content: bytes) -> dict[str, bytes]:
    with ZipFile(io.BytesIO(content)) as file:
        return {name: file.read(name) for name in file.namelist()}


def selection(service: Service, client: httpx2.Client, job: str, approved: list[dict[str, Any]], **more: Any) -> str:
    """The id of a finished selection."""
    answer = client.post(f"/jobs/{job}/selections", json={"reviewer": "Ada", "approved": approved, **more})
    assert answer.status_code == 202, answer.text
    made = str(answer.json()["id"])
    run_generation(made, service.context())
    record = service.record(made)
    assert record.state is State.SUCCEEDED, record.error
    return made
