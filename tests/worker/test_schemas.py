"""The answers of a real run hold what the API's document says of them, and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import httpx2
import pytest
from jsonschema_rs import Draft202012Validator

from service.main import create_app
from tests.service.api.conftest import serving
from tests.support.relay import Held, held_back
from tests.support.servers import RedisServer
from tests.worker.stored import TINY_PROFILES, HeldOut, Service
from worker.generation.run import run_generation
from worker.training.run import run_training

Answers = list[dict[str, Any]]


def answers_while(url: str, path: str, work: Callable[[], None], held: Held) -> Answers:
    """What the path tells before, during and after some work, without repetitions.

    Args:
        held: the end of the work, which comes once it has told of how far it is.
    """
    with httpx2.Client(base_url=url, timeout=30) as client:
        found: Answers = [client.get(path).json()]
        thread = threading.Thread(target=work)
        thread.start()
        while thread.is_alive():
            thread.join(0.02)
            if (told := client.get(path).json()) != found[-1]:
                found.append(told)
            if held.reached.is_set() and told["progress"] is not None:
                held.let_go.set()
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


def test_every_field_of_a_real_answer_is_in_the_document(
    service: Service, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.api.auth.LOCAL", "me")  # whose records those of the service are
    open_to_all = service.settings.model_copy(update={"require_keys": False, "reconcile_seconds": 60.0})
    adapter = service.create_adapter(held_out=HeldOut())
    last_step, writing = Held(b'"stage": "train", "completed": 6'), Held(b'"stage": "finish"')
    told = {}
    with serving(open_to_all) as url:
        with held_back(redis_server.port, last_step) as relay:
            context = service.context(redis_url=f"redis://127.0.0.1:{relay.port}/0")
            work = partial(run_training, adapter, context)
            told["Adapter"] = answers_while(url, f"/v1/adapters/{adapter}", work, last_step)
        job = service.create_job(adapter, 3, evaluation={"profile": "quick", "seeds": 1})
        with held_back(redis_server.port, writing) as relay:
            url_there = f"redis://127.0.0.1:{relay.port}/0"
            context = service.context(redis_url=url_there, profiles=TINY_PROFILES)
            work = partial(run_generation, job, context)
            told["Job"] = answers_while(url, f"/v1/jobs/{job}", work, writing)
        for name, path in (("AdapterList", "/v1/adapters"), ("JobList", "/v1/jobs")):
            told[name] = [httpx2.get(f"{url}{path}").json()]
        told["Artifact"] = [httpx2.get(f"{url}/v1/adapters/{adapter}/artifact").json()]
        told["Problem"] = [httpx2.get(f"{url}/v1/jobs?limit=0&after=x").json()]
    assert told["Adapter"][-1]["state"] == told["Job"][-1]["state"] == "succeeded"
    assert any((answer["progress"] or {}).get("loss") for answer in told["Adapter"])
    assert told["Job"][-1]["verdict"]["status"] == "measured"
    document = strict(create_app(service.settings).openapi())
    for name, answers in told.items():
        validator = Draft202012Validator({**document, "$ref": f"#/components/schemas/{name}"})
        for answer in answers:
            assert [f"{error.instance_path}: {error.message}" for error in validator.iter_errors(answer)] == []
