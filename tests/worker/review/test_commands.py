"""The commands and the client that replace pairs and make a dataset of the approved ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest
from typer.testing import CliRunner, Result

from service.cli.app import app
from service.client import Client
from tests.worker.review.approving import entries
from tests.worker.stored import Service
from worker.generation.run import run_generation

pytestmark = pytest.mark.timeout(600)

AT = "2026-11-28T10:15:00.000Z"


@pytest.fixture
def address(client: httpx2.Client, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the commands find the server."""
    address = str(client.base_url).removesuffix("/").removesuffix("/v1")
    monkeypatch.setenv("PAIRFORGE_URL", address)
    return address


def command(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["jobs", *map(str, arguments), "--json"])


def created(*arguments: str | Path) -> str:
    """The id of the job that a command creates."""
    told = command(*arguments)
    assert told.exit_code == 0, told.output
    return str(json.loads(told.output.splitlines()[-1])["id"])


def reviewed(service: Service, job: str) -> list[tuple[str, int, str]]:
    """Job, candidate and reviewer of each pair of a selection."""
    run_generation(job, service.context())
    rows = [json.loads(line) for line in entries(service.dataset(job))["manifest.jsonl"].splitlines()]
    return [(row["review"]["job_id"], row["review"]["candidate"], row["review"]["by"]) for row in rows]


def listed(client: httpx2.Client, job: str) -> list[int]:
    return [pair["candidate"] for pair in client.get(f"/jobs/{job}/pairs").json()["data"]]


def test_replaced_and_approved_pairs_become_one_dataset_by_command(
    service: Service, client: httpx2.Client, job: str, address: str, tmp_path: Path
) -> None:
    more = created("replace", job, "-n", "1")
    run_generation(more, service.context())
    (new,), kept = listed(client, more), listed(client, job)[:2]
    pairs = [{"candidate": each, "at": AT} for each in kept] + [{"candidate": new, "job_id": more, "at": AT}]
    request: dict[str, Any] = {"reviewer": "Ada", "approved": pairs, "formats": ["coco"]}
    whole, alone = tmp_path / "request.json", tmp_path / "approved.json"
    whole.write_text(json.dumps(request))
    alone.write_text(json.dumps(pairs))
    joined = created("select", job, "--approved", whole)
    assert reviewed(service, joined) == [(job, each, "Ada") for each in kept] + [(more, new, "Ada")]
    assert "coco/instances_rle.json" in entries(service.dataset(joined))
    again = created("select", job, "--approved", alone, "--reviewer", "Grace", "--formats", "yolo")
    assert [by for *_, by in reviewed(service, again)] == 3 * ["Grace"]
    assert client.get(f"/jobs/{again}").json()["request"]["formats"] == ["yolo"]


def test_candidates_are_approved_by_number(service: Service, client: httpx2.Client, job: str, address: str) -> None:
    first, _, third = listed(client, job)
    chosen = created("select", job, "--candidates", f"{third}, {first}", "--reviewer", "Ada")
    assert reviewed(service, chosen) == [(job, first, "Ada"), (job, third, "Ada")]
    with Client(address) as own:
        same = [own.select_pairs(job, [first], reviewer="Ada", idempotency_key="one").id for _ in range(2)]
        assert same[0] == same[1]
        more = [own.replace_pairs(job, 1, idempotency_key="two").id for _ in range(2)]
        assert more[0] == more[1]


def test_what_cannot_be_done_is_said(job: str, address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.json").write_text("[")
    Path("other.json").write_text('{"candidates": [0]}')
    for (name, *options), reason in (
        (("replace",), "how many"),
        (("replace", "-n", "0"), "num_pairs"),
        (("replace", "--defects", "rust=1"), "did not learn rust"),
        (("select", "--reviewer", "Ada"), "either --candidates"),
        (("select", "--reviewer", "Ada", "--candidates", "0", "--approved", "a.json"), "either --candidates"),
        (("select", "--candidates", "0"), "--reviewer"),
        (("select", "--reviewer", "Ada", "--candidates", "0,b"), "'b'"),
        (("select", "--reviewer", "Ada", "--candidates", "99999"), "not in the dataset"),
        (("select", "--reviewer", "Ada", "--approved", "absent.json"), "cannot be read"),
        (("select", "--reviewer", "Ada", "--approved", "broken.json"), "not JSON"),
        (("select", "--reviewer", "Ada", "--approved", "other.json"), "must contain a list"),
    ):
        told = command(name, job, *options)
        assert told.exit_code == 2, told.output
        assert reason in json.loads(told.output.splitlines()[-1])["problems"][0]
