"""What the app does to the process that it runs in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

NOWHERE = {"PAIRFORGE_REDIS_URL": "redis://127.0.0.1:9", "PAIRFORGE_S3_ENDPOINT_URL": "http://127.0.0.1:9"}

PROGRAM = """
import asyncio, logging
from service.main import create_app
from service.core.settings import load_settings

async def main(app):
    async with app.router.lifespan_context(app):
        print(bool(logging.getLogger().handlers))

asyncio.run(main(create_app({settings})))
"""


@pytest.mark.parametrize(
    ("settings", "told"), [("", "True"), ("load_settings()", "False")], ids=["its own", "another's"]
)
def test_logs_are_configured_in_a_process_of_its_own_only(settings: str, told: str, tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(settings=settings)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PAIRFORGE_SPOOL_DIR": str(tmp_path), **NOWHERE},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout.splitlines()[-1:] == [told], run.stderr
