"""What the OpenAPI document promises holds for whatever a client may send."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from redis import Redis

from service.core.api_keys import create_key
from service.core.settings import Settings
from tests.service.api.conftest import serving

SECONDS = os.environ.get("PAIRFORGE_TEST_CONTRACT_SECONDS", "30")
"""How long requests are made up; a long run asks for more."""

UNLIMITED = {
    "max_active_per_key": 100_000,
    "max_creates_per_minute_per_key": 1_000_000,
    "max_work_per_key": 10**18,
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


@pytest.mark.timeout(int(SECONDS) + 120)
def test_schemathesis_finds_nothing(settings: Settings, redis: Redis, tmp_path: Path) -> None:
    key = create_key(redis, "schemathesis")
    program = Path(sys.executable).with_name("schemathesis")
    with serving(settings.model_copy(update=UNLIMITED)) as url:
        command = [str(program), "run", f"{url}/openapi.json", "--header", f"Authorization: Bearer {key}"]
        command += ["--checks", ",".join(CHECKS), "--phases", "coverage,fuzzing", "--max-time", SECONDS, "--seed", "1"]
        command += ["--exclude-path-regex", "/metrics$|/readyz$", "--generation-database", "none"]
        run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-6000:]
