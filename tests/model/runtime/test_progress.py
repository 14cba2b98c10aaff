from __future__ import annotations

import time

import pytest

from model.runtime.progress import Meter


@pytest.mark.parametrize(
    ("completed", "share", "rate", "eta"),
    [(3, 0.0, 0.0, None), (3, 0.5, 0.05, 50.0), (4, 0.0, 0.1, 20.0), (5, 0.5, 0.25, 2.0), (6, 0.0, 0.3, 0.0)],
)
def test_the_time_left_follows_from_what_this_run_did(
    completed: int, share: float, rate: float, eta: float | None
) -> None:
    """Three of six units were done before, and ten seconds have passed."""
    found = Meter("evaluate", 6, "rows", resumed=3, started=time.monotonic() - 10).report(completed, share=share)
    assert found.completed == completed
    assert found.rate == pytest.approx(rate, rel=0.01)
    assert found.eta == (None if eta is None else pytest.approx(eta, rel=0.01))
