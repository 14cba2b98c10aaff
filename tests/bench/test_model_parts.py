"""The command that measures the model, from its options to its files, on a miniature of Stable Diffusion."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bench.__main__ import main
from bench.forms import Form
from bench.hardware import Peak, count_operations, full_mantissas, peak_memory
from bench.model_report import Results, Row, markdown
from bench.sampling import one_pass, row_name
from bench.timebox import Timebox
from model.diffusion.base import load_base
from model.dualanodiff.sampling.cuda_graphs import Compiler, CudaGraphRunner
from model.dualanodiff.sampling.merged_unet import MergedUNet
from model.dualanodiff.sampling.sampler import prepare_sampling
from model.kernels.lora import BranchProduct
from model.runtime.malloc import keep_freed_memory
from service.core.options.common import MaskMethod
from service.core.options.dualanodiff import SamplingConfig
from tests.support.tiny_data import tiny_adapter

ROOT = Path(__file__).resolve().parents[2]

ABSENT = ("boto3", "celery", "cv2", "fastapi", "pycocotools", "redis", "structlog", "typer", "uvloop")
"""What a machine with torch, diffusers, transformers and peft may lack."""


@pytest.mark.timeout(300)
def test_the_whole_command_measures_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--size", "tiny", "--device", "cpu", "--repeats", "1", "--steps", "2", "--batch", "2"]
    main(["--parts", "sampling", "training", *options, "--minutes", "5", "--into", str(tmp_path)])
    told = json.loads((tmp_path / "model-tiny.json").read_text())
    # Servers of other tests may tell of themselves meanwhile.
    assert (tmp_path / "model-tiny.md").read_text() in capsys.readouterr().out
    names = [row["name"] for row in told["sampling"]]
    assert names[:4] == [
        "reference form, 2 steps",
        "ours, 2 steps, fp32",
        "ours, 2 steps, fp32, one pair at a time",
        "ours, defaults: 4 steps, anchored, from 0.9 of the noise, fp32",
    ]
    assert {"… guidance in a pass of its own", "… LoRAs beside the weights", "… SAIM written out"} < set(names)
    measured = [Row(**row) for row in told["sampling"] + told["training"]]
    assert all(row.per_unit > 0 for row in measured)
    assert {row.against for row in measured} - {""} < {row.name for row in measured}
    # One pair with guidance, in either form.
    assert measured[0].pass_rows == measured[2].pass_rows == 4
    assert len(told["agreements"]) == 6
    assert all(each["seen"] <= each["allowed"] for each in told["agreements"])
    assert told["job"]["pairs"] == 4
    assert {"denoise", "decode", "mask", "check"} <= set(told["job"]["stages"])
    assert sum(told["job"]["stages"].values()) <= told["job"]["in_turn"]


def test_what_does_not_fit_in_time_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--size", "tiny", "--device", "cpu", "--minutes", "0", "--into", str(tmp_path)]
    main(["--parts", "sampling", *options])
    assert json.loads((tmp_path / "model-tiny.json").read_text())["sampling"] == []
    # The library's steps, though this base recommends others.
    assert f"no time for: reference form, {SamplingConfig().steps} steps" in capsys.readouterr().err


def test_nothing_is_begun_that_took_longer_than_there_is_time() -> None:
    remarks: list[str] = []
    box = Timebox(1.0, remarks.append)
    assert box.allows("long")
    box.took |= {"short": 1.0, "long": 61.0}
    assert not box.allows("long")
    assert box.allows("short")
    assert not box.allows("never measured", "nor this", "long", "short")
    assert box.allows("short", "long")
    assert remarks == ["no time for: long", "no time for: never measured"]


def test_a_speed_is_the_median_over_rounds_of_what_was_measured_together() -> None:
    # The second round is twice as slow for both.
    theirs, ours = Row("theirs", "fp32", seconds=[6, 12, 7]), Row("ours", "fp32", "theirs", seconds=[2, 4])
    results = Results("tiny", "cpu", {}, 0.1, Peak(1e9, 1e9), [theirs, ours])
    assert "| 3.00 (3.00 to 3.00) |" in markdown(results, "a machine")


@pytest.mark.timeout(300)
def test_measuring_the_model_needs_no_service() -> None:
    code = f"import sys\nsys.modules.update(dict.fromkeys({ABSENT}))\nimport bench.model_parts"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_operations_are_counted_with_attention_and_backward_pass() -> None:
    a, b = torch.ones(4, 8, requires_grad=True), torch.ones(8, 16)
    assert count_operations(lambda: a @ b) == 2 * 4 * 8 * 16
    assert count_operations(lambda: (a @ b).sum().backward()) == 2 * 2 * 4 * 8 * 16
    query = torch.ones(1, 2, 64, 16)
    assert count_operations(lambda: F.scaled_dot_product_attention(query, query, query)) == 2 * 2 * 2 * 64 * 64 * 16


def test_operations_of_branches_are_those_of_their_products_written_out() -> None:
    rows, width, rank, out = 6, 600, 2, 200
    base = nn.Linear(width, out).requires_grad_(False)
    product = BranchProduct(base)
    x = torch.ones((2 * rows, width), requires_grad=True)
    down, up = (torch.ones(shape, requires_grad=True) for shape in ((2, rank, width), (2, out, rank)))
    forwards = 2 * 2 * rows * (width * out + width * rank + rank * out)
    assert count_operations(lambda: product(x, down, up)) == forwards
    backwards = forwards + 2 * 2 * rows * (width * rank + rank * out)  # the base's weight has no gradient
    assert count_operations(lambda: product(x, down, up).sum().backward()) == forwards + backwards


def test_full_mantissas_come_from_cudnn_too() -> None:
    with full_mantissas():
        assert torch.backends.cudnn.enabled
        assert not torch.backends.cudnn.allow_tf32


def test_peak_memory_is_that_of_the_work_alone() -> None:
    keep_freed_memory()
    kept = [torch.ones(5_000_000) for _ in range(20)]
    del kept  # twice what the work needs lies free in the heap
    with peak_memory("cpu") as before:
        pass
    with peak_memory("cpu") as large:
        torch.ones(50_000_000)
    assert large.peak - before.peak > 150_000_000


@torch.no_grad()
def test_a_row_tells_what_its_passes_lack(tiny_base: Path) -> None:
    def no_compiler(*_: object) -> Callable[..., torch.Tensor]:
        raise RuntimeError("no C compiler was found")

    config = SamplingConfig(batch=1, mask_method=MaskMethod.THRESHOLD)
    sampler = prepare_sampling(tiny_adapter(load_base(str(tiny_base))), config)
    form = Form("ours", config, "reference form", "compiled")
    names = []
    for backend in ("eager", no_compiler):
        compiler = Compiler(backend)
        passes = CudaGraphRunner(cast("MergedUNet", sampler.adapter.model.denoiser), compiler)
        run = one_pass(sampler, passes)
        run()
        compiler.wait()
        run()
        names.append(row_name(form, passes))
    # A CPU has no graphs to capture.
    assert names == ["ours (not captured)", "ours (not compiled nor captured)"]
    assert row_name(replace(form, run="plain"), sampler.predict) == "ours"
