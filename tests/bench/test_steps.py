"""Quality against steps: more of them come closer to where many lead."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import steps
from bench.steps import measure_steps, steps_table
from model.diffusion.base import load_base
from tests.support.tiny_data import drawn_normal, tiny_adapter, tiny_u2net


def test_more_steps_come_closer_to_many(tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "STEPS", (2, 6))
    monkeypatch.setattr(steps, "CONVERGED", 12)
    adapter, saved = tiny_adapter(load_base(str(tiny_base))), []
    found = measure_steps(
        adapter, tiny_u2net(), [drawn_normal(0)], 2, lambda _: None, lambda distances: saved.append(len(distances))
    )
    assert saved == [2, 3, 4, 5, 7, 8, 9, 10]
    assert len(steps_table(found, 2).splitlines()) == 2 + 2 + len(found)
    for start in {each.start for each in found}:
        image = {(each.solver, each.steps): each.image for each in found if each.start == start}
        assert image["dpmsolver++", 6] < image["dpmsolver++", 2] < image["another pair", 12]
        assert image["dpmsolver++", 6] < image["DDIMScheduler", 6]
