"""What the OpenAPI document promises holds for whatever a client may send, whether or not the record exists."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import httpx2
import pytest
from redis import Redis

from service.core import object_keys
from service.core.api_keys import create_key
from service.core.records.store import RecordStore
from service.core.settings import Settings
from service.core.storage import ObjectStore
from tests.service.api.conftest import finished_job, serving, trained
from tests.service.api.uploads import SIDE, encoded, mask, picture

SECONDS = int(os.environ.get("PAIRFORGE_TEST_CONTRACT_SECONDS", "15"))
"""How long requests are made up about records that there are not, and again about some that there are; `make fuzz` asks
for ten minutes of each."""

UNLIMITED = {
    "max_active_per_key": 100_000,
    "max_creates_per_minute_per_key": 1_000_000,
    "max_work_per_key": 10**18,
    "max_streams_per_key": 1_000,
    "max_streams": 1_000,
}

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "negative_data_rejection",
    "unsupported_method",
    "ignored_auth",
)

CONFIGURATION = """
# Besides what is usual: 409 of a record in another state, 413 of a body that is too large, 415 of one of another kind.
[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 406, 409, 413, 415, 422, 428]
"""

READINESS = """
# No worker is alive here, and a busy machine may be late: 503 is its answer to that, not a failure.
[[operations]]
include-path = "/readyz"
checks.not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", 503]
"""

REAL = """
[parameters]
"path.adapter_id" = "{adapter}"
"path.job_id" = "{job}"
"path.step" = 5
"path.candidate" = 0

# What is deleted is missing from then on, so these are others.
[[operations]]
include-method = "DELETE"
parameters = {{ "path.adapter_id" = "{spare_adapter}", "path.job_id" = "{spare_job}" }}
"""


def schemathesis(url: str, key: str, configuration: str, folder: Path) -> subprocess.CompletedProcess[str]:
    folder.mkdir()
    (folder / "schemathesis.toml").write_text(configuration)
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{url}/openapi.json"]
    command += ["--header", f"Authorization: Bearer {key}", "--checks", ",".join(CHECKS)]
    command += ["--phases", "coverage,fuzzing", "--max-time", str(SECONDS), "--seed", "1"]
    command += ["--exclude-path-regex", "/metrics$", "--generation-database", "none"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def dataset() -> bytes:
    """A zip of one pair, as workers write it."""
    row = {"candidate": 0, "image": "images/000000.png", "mask": "masks/000000.png", "seed": 1, "scores": {"area": 0.1}}
    row |= {"width": SIDE, "height": SIDE, "mask_fraction": 0.1, "window": None, "normal": None}
    file = io.BytesIO()
    with ZipFile(file, "w") as archive:
        archive.writestr("dataset.json", json.dumps({"evaluation": {"verdict": {"status": "measured"}}}))
        archive.writestr("manifest.jsonl", json.dumps(row) + "\n")
        archive.writestr(row["image"], encoded(picture(0)))
        archive.writestr(row["mask"], encoded(mask()))
    return file.getvalue()


@pytest.mark.timeout(2 * SECONDS + 240)
def test_schemathesis_finds_nothing(
    settings: Settings, redis: Redis, store: RecordStore, storage: ObjectStore, tmp_path: Path
) -> None:
    key = create_key(redis, "schemathesis")
    with serving(settings.model_copy(update=UNLIMITED)) as url:
        made_up = schemathesis(url, key, CONFIGURATION + READINESS, tmp_path / "made up")
        with httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=60) as client:
            job = finished_job(client, store, storage, dataset())
            adapter = client.get(f"/v1/jobs/{job}").json()["adapter_id"]
            spare_job, spare_adapter = finished_job(client, store, storage), trained(client, store)
        storage.put(object_keys.sample(adapter, 5, "worker"), encoded(picture(5)), "image/png")
        ids = {"adapter": adapter, "job": job, "spare_adapter": spare_adapter, "spare_job": spare_job}
        existing = CONFIGURATION + READINESS + REAL.format(**ids)
        real = schemathesis(url, key, existing, tmp_path / "real")
    assert made_up.returncode == 0, made_up.stdout[-6000:]
    assert real.returncode == 0, real.stdout[-6000:]
    assert {store.records.get(each) is None for each in (job, adapter)} == {False}
