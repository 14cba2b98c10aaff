"""bf16 is used where it is fast."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from model.diffusion.base import load_base
from model.runtime.matrix_units import fastest_precision, has_amx


@pytest.mark.parametrize(
    ("flags", "amx", "precision"), [("fpu amx_bf16 amx_tile", True, "bf16"), ("fpu avx512_bf16", False, "fp32")]
)
def test_the_processors_flags_tell_whether_bf16_is_fast(
    tmp_path: Path, flags: str, precision: str, *, amx: bool
) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(f"processor : 0\nmodel name : café\nflags\t\t: {flags}\n", encoding="utf-8")
    assert has_amx(file) is amx
    assert fastest_precision(torch.device("cpu"), "bf16", file) == precision


def test_without_a_list_of_flags_there_are_none(tmp_path: Path) -> None:
    assert not has_amx(tmp_path / "cpuinfo")


def test_gpus_keep_what_is_recommended_and_processors_keep_fp32() -> None:
    assert fastest_precision(torch.device("cuda"), "bf16") == "bf16"
    assert fastest_precision(torch.device("cpu"), "fp32") == "fp32"


def test_a_base_recommends_bf16_only_to_devices_that_are_fast_in_it() -> None:
    base = load_base("mini")
    assert base.card["sampling"]["precision"] == "bf16"
    expected = "bf16" if has_amx() else "fp32"
    assert base.sampling["precision"] == base.few_shot["precision"] == expected
    assert base.sampling["steps"] == base.card["sampling"]["steps"]
