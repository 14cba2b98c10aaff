"""The examples of the OpenAPI document can be sent as they are, with files of their names and the id of an adapter."""

from __future__ import annotations

from typing import Any

import httpx2

from service.core.records.store import RecordStore
from tests.service.api.conftest import succeeded
from tests.service.api.uploads import Parts, encoded, mask, picture


def examples(client: httpx2.Client, path: str, kind: str) -> dict[str, Any]:
    body = client.get("/openapi.json").json()["paths"][path]["post"]["requestBody"]
    return {name: each["value"] for name, each in body["content"][kind]["examples"].items()}


def form(example: dict[str, Any]) -> tuple[dict[str, str], Parts]:
    """An example's fields, and its files, each of which shows something of its own."""
    fields = {name: str(value) for name, value in example.items() if not isinstance(value, list)}
    files: Parts = []
    for name, names in example.items():
        for number, file in enumerate(names if isinstance(names, list) else []):
            content = mask(number) if "masks" in name else picture(100 * len(files) + number)
            files.append((name, (file, encoded(content), "image/png")))
    return fields, files


def test_examples_are_accepted_as_they_are(client: httpx2.Client, store: RecordStore) -> None:
    """Those of jobs by an adapter of one of the examples at least: the others lack their types, or good parts."""
    adapters = {}
    for name, example in examples(client, "/v1/adapters", "multipart/form-data").items():
        fields, files = form(example)
        answer = client.post("/v1/adapters", data=fields, files=files)
        assert answer.status_code == 202, (name, answer.text)
        adapters[name] = succeeded(store, answer.json()["id"])
    assert {"anomalydiffusion", "defect-types"} <= adapters.keys()
    jobs = examples(client, "/v1/jobs", "application/json")
    fields = {field for example in jobs.values() for field in example}
    assert {"defects", "region", "placements", "allowed", "forbidden", "evaluation"} <= fields
    assert any("mask" in place for example in jobs.values() for place in example.get("placements", []))
    for name, example in jobs.items():
        answers = [client.post("/v1/jobs", json={**example, "adapter_id": adapter}) for adapter in adapters.values()]
        assert 202 in {answer.status_code for answer in answers}, (name, [answer.text for answer in answers])
