"""The benchmark of pretraining: a row for every setting, whose figures belong together."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bench import pretraining
from bench.pretraining import measure_rows, pretraining_table
from model.pretrain.pairs import PairsConfig
from model.pretrain.presets import PRESETS


def test_every_batch_and_number_of_threads_has_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    small = replace(PRESETS["cpu"], pairs=PairsConfig(widths=(16, 32), heads=2), text_width=16, text_layers=1)
    monkeypatch.setattr(pretraining, "PRESETS", {"cpu": small})
    threads = torch.get_num_threads()
    rows = list(measure_rows("cpu", (2, 4), (1,), lambda _: None, compiled=False))
    assert [(row.batch, row.threads, row.form) for row in rows] == [(2, 1, "as written"), (4, 1, "as written")]
    assert all(row.pairs_per_second > 0 for row in rows)
    assert all(0 < row.share_of_peak < 1 for row in rows)
    assert torch.get_num_threads() == threads
    assert len(pretraining_table(rows).splitlines()) == 4
