"""bf16 is used where it is fast."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from model.diffusion.base import load_base
from model.runtime import matrix_units
from model.runtime.matrix_units import ADVANTAGE, faster_precision, fastest_precision

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _measured_again() -> Iterator[None]:
    faster_precision.cache_clear()
    yield
    faster_precision.cache_clear()


@pytest.mark.parametrize(("advantage", "precision"), [(2 * ADVANTAGE, "bf16"), (1.0, "fp32"), (0.5, "fp32")])
def test_the_speed_of_products_tells_whether_bf16_is_fast(
    monkeypatch: pytest.MonkeyPatch, advantage: float, precision: str
) -> None:
    seconds = {torch.float32: 1.0, torch.bfloat16: 1.0 / advantage}
    monkeypatch.setattr(matrix_units, "_seconds", seconds.__getitem__)
    assert fastest_precision(CPU, "bf16") == precision


def test_a_precision_is_measured_once() -> None:
    first = faster_precision(CPU)
    assert all(faster_precision(CPU) is first for _ in range(3))
    assert faster_precision.cache_info().misses == 1


def test_gpus_keep_what_is_recommended_and_processors_keep_fp32() -> None:
    assert fastest_precision(torch.device("cuda"), "bf16") == "bf16"
    assert fastest_precision(CPU, "fp32") == "fp32"


def test_a_base_recommends_bf16_only_to_devices_that_are_fast_in_it() -> None:
    base = load_base("mini")
    assert base.card["sampling"]["precision"] == "bf16"
    expected = "bf16" if faster_precision(CPU) is torch.bfloat16 else "fp32"
    assert base.sampling["precision"] == base.few_shot["precision"] == expected
    assert base.sampling["steps"] == base.card["sampling"]["steps"]
