"""The answers of a real run hold what the API's document says of them, and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from jsonschema_rs import Draft202012Validator

from service.main import create_app
from tests.api.conftest import serving
from tests.worker.stored import Service
from worker.generation import run_generation
from worker.training import run_training

Answers = list[dict[str, Any]]


def answers_while(url: str, path: str, work: Callable[[], None]) -> Answers:
    """What the path tells before, during and after some work, without repetitions."""
    with httpx2.Client(base_url=url, timeout=30) as client:
        found: Answers = [client.get(path).json()]
        thread = threading.Thread(target=work)
        thread.start()
        while thread.is_alive():
            thread.join(0.02)
            if (told := client.get(path).json()) != found[-1]:
                found.append(told)
        thread.join()
        return [*found, client.get(path).json()]


def strict(schema: Any) -> Any:
    """The schema with all properties forbidden that it does not name, wherever it names any."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: strict(value) for key, value in schema.items()}
    return {**made, "additionalProperties": False} if "properties" in schema else made


def test_every_field_of_a_real_answer_is_in_the_document(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.api.auth.LOCAL", "me")  # whose records those of the service are
    open_to_all = service.settings.model_copy(update={"require_keys": False, "reconcile_seconds": 60.0})
    adapter = service.create_adapter()
    context = service.context()
    with serving(open_to_all) as url:
        told = {"Adapter": answers_while(url, f"/v1/adapters/{adapter}", lambda: run_training(adapter, context))}
        job = service.create_job(adapter, 3)
        told["Job"] = answers_while(url, f"/v1/jobs/{job}", lambda: run_generation(job, context))
        for name, path in (("AdapterList", "/v1/adapters"), ("JobList", "/v1/jobs")):
            told[name] = [httpx2.get(f"{url}{path}").json()]
        told["Artifact"] = [httpx2.get(f"{url}/v1/adapters/{adapter}/artifact").json()]
        told["Problem"] = [httpx2.get(f"{url}/v1/jobs?limit=0&after=x").json()]
    assert told["Adapter"][-1]["state"] == told["Job"][-1]["state"] == "succeeded"
    assert any((answer["progress"] or {}).get("loss") for answer in told["Adapter"])
    document = strict(create_app(service.settings).openapi())
    for name, answers in told.items():
        validator = Draft202012Validator({**document, "$ref": f"#/components/schemas/{name}"})
        for answer in answers:
            assert [f"{error.instance_path}: {error.message}" for error in validator.iter_errors(answer)] == []
