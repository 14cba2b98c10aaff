from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.core.errors import UsageError
from service.core.uploads.images import ImageLimits, read_image
from tests.service.core.uploads import mutants

EXAMPLES = 100
"""Of each kind of file."""

MEGABYTES = 100
"""The one megapixel that is allowed may take 48; Hypothesis itself keeps some."""


@pytest.mark.timeout(600)
def test_whatever_a_header_claims_costs_no_more_memory_than_the_limits_allow() -> None:
    run = subprocess.run(
        [sys.executable, mutants.__file__, str(EXAMPLES)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[4])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-4000:]
    assert float(run.stdout) < MEGABYTES


def test_a_tile_that_is_unpacked_for_a_small_picture_counts() -> None:
    tiles = {322: 2**15, 323: 2**15, 324: 0, 325: 0}
    data = mutants.tiff({256: 64, 257: 64, 258: 8, 259: 8, 262: 1, 277: 1, **tiles}, b"x")
    with pytest.raises(UsageError, match="tiles of 32768×32768 pixels: save it without tiles"):
        read_image(data, "a", ImageLimits())
