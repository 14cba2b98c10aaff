"""What the page costs a browser is measured on a stack of its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from bench.page import FRAME_COUNT, SPEEDS, run_page


@pytest.mark.timeout(300)
def test_a_review_is_opened_and_scrolled(tmp_path: Path) -> None:
    if not (shutil.which("chromium") or shutil.which("google-chrome")):
        pytest.skip("no Chromium; on Debian and Ubuntu: sudo apt-get install chromium")
    text = run_page(40, 64, tmp_path, (0.0, 0.0, 0.0), lambda _: None)
    found = json.loads((tmp_path / "page.json").read_text())
    assert found["first"] > 0
    assert found["again"] > 0
    assert [scroll["frames"] for scroll in found["scrolls"]] == [FRAME_COUNT] * len(SPEEDS)
    assert all(0 < scroll["median"] <= scroll["p99"] <= scroll["longest"] for scroll in found["scrolls"])
    assert (tmp_path / "page.md").read_text() == text
