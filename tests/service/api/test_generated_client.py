"""A client that a generator makes from the OpenAPI document works: what is described is what is answered.

`make setup` installs the generator beside the environment of the tests; one that is on the path is taken, too. Without
it, continuous integration fails.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from service.core.records.store import RecordStore
from service.core.storage import ObjectStore
from tests.service.api.conftest import finished_job

OWN = Path(sys.prefix) / "generator" / "bin"
GENERATOR = shutil.which("openapi-python-client", path=f"{OWN}:{os.environ['PATH']}")
HINT = "openapi-python-client is not installed: make setup"

CALLS = """
import sys
from generated import AuthenticatedClient
from generated.api.adapters import get_adapter, list_adapters
from generated.api.jobs import create_job, get_job
from generated.models import Adapter, Job, JobRequest, Problem, State

address, key, job_id = sys.argv[1:]
client = AuthenticatedClient(address, token=key, raise_on_unexpected_status=True)
job = get_job.sync(job_id, client=client)
assert isinstance(job, Job), job
assert job.state is State.SUCCEEDED and job.dataset.bytes_ == 3, job
adapter = get_adapter.sync(job.adapter_id, client=client)
assert isinstance(adapter, Adapter) and adapter.name == "scratches", adapter
assert [each.id for each in list_adapters.sync(client=client, limit=5).data] == [adapter.id]
new = create_job.sync(client=client, body=JobRequest(adapter_id=adapter.id, num_pairs=2))
assert isinstance(new, Job) and new.request["num_pairs"] == 2, new
refused = create_job.sync(client=client, body=JobRequest(adapter_id=adapter.id, num_pairs=0))
assert isinstance(refused, Problem) and refused.errors[0].pointer == "/num_pairs", refused
"""


@pytest.mark.skipif(GENERATOR is None and not os.environ.get("CI"), reason=HINT)
def test_a_generated_client_reads_and_creates_records(
    client: httpx2.Client, address: str, store: RecordStore, storage: ObjectStore, tmp_path: Path
) -> None:
    assert GENERATOR is not None, HINT
    programs = Path(GENERATOR).resolve().parent
    (tmp_path / "openapi.json").write_bytes(client.get("/openapi.json").content)
    made = subprocess.run(
        [GENERATOR, "generate", "--path", "openapi.json", "--output-path", "generated", "--meta", "none"],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    # Pictures are the only answers that it leaves out.
    assert "Unable to process schema" not in made.stdout
    assert set(re.findall(r"^Cannot parse response.*\((.*)\)", made.stdout, re.MULTILINE)) <= {
        "Unsupported content_type image/png"
    }
    (tmp_path / "calls.py").write_text(CALLS)
    key = client.headers["authorization"].removeprefix("Bearer ")
    job = finished_job(client, store, storage)
    called = subprocess.run(
        [programs / "python", "calls.py", address, key, job], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert called.returncode == 0, called.stderr
