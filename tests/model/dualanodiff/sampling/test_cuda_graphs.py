"""Passes that are compiled and replayed against passes as they are written."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model.diffusion.base import Base, load_base
from model.dualanodiff.model import build_model
from model.dualanodiff.sampling.cuda_graphs import REPLAY_TOLERANCE, Compiler, CudaGraphRunner, predictor
from model.dualanodiff.sampling.merged_unet import MergedUNet, merge_for_sampling
from model.dualanodiff.unet import ForwardOptions
from model.runtime import switches
from model.runtime.switches import Switch
from tests.support.tiny_data import awaken, tiny_config

BACKEND = "aot_eager"
"""Traces and guards as Inductor does, without a compiler of C++."""


@pytest.fixture(scope="module")
def base(tiny_base: Path) -> Base:
    return load_base(str(tiny_base))


def merged(base: Base, seed: int, dtype: torch.dtype = torch.float32) -> MergedUNet:
    model = build_model(base, tiny_config(lora_targets="all"), "metal tile", "crack")
    awaken(model, seed=seed)
    return merge_for_sampling(model.denoiser, base.unet, dtype)


def inputs(base: Base, pairs: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    width = base.text_encoder.config.hidden_size
    text = torch.randn((2, pairs, 8, width), generator=generator)
    return torch.randn((2, pairs, 4, 8, 8), generator=generator), torch.tensor(321), text


@torch.no_grad()
def test_one_compiled_pass_serves_all_adapters_of_a_base(base: Base) -> None:
    compiler, given = Compiler(BACKEND), inputs(base)
    one, other = merged(base, 1), merged(base, 2)
    assert compiler.compiled(one, given[0], given[2]) is None
    compiler.wait()
    torch._dynamo.utils.counters.clear()
    for denoiser in (one, other):
        compiled = compiler.compiled(denoiser, given[0], given[2])
        assert compiled is not None
        torch.testing.assert_close(compiled(*given), denoiser(*given))
    assert not torch._dynamo.utils.counters["stats"]  # nothing was traced again
    assert not torch.allclose(one(*given), other(*given))


@torch.no_grad()
def test_what_cannot_be_compiled_runs_as_it_is_written(base: Base, caplog: pytest.LogCaptureFixture) -> None:
    def no_compiler(*_: object) -> Callable[..., Tensor]:
        raise RuntimeError("no C compiler was found")

    compiler, denoiser, given = Compiler(no_compiler), merged(base, 1), inputs(base)
    passes = CudaGraphRunner(denoiser, compiler)
    with caplog.at_level(logging.WARNING, "model.dualanodiff.sampling.cuda_graphs"):
        first = passes(*given, ForwardOptions())
        compiler.wait()
        assert torch.equal(passes(*given, ForwardOptions()), first)
    assert torch.equal(first, denoiser(*given))
    assert "no C compiler was found" in caplog.text


@torch.no_grad()
def test_passes_that_record_or_inject_are_run_as_they_are_written(base: Base) -> None:
    denoiser, given = merged(base, 1), inputs(base)
    maps: list[Tensor] = []
    output = CudaGraphRunner(denoiser, None)(*given, ForwardOptions(attention_maps=maps))
    assert torch.equal(output, denoiser(*given))
    assert maps


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_replayed_passes_follow_their_inputs(base: Base, dtype: torch.dtype, caplog: pytest.LogCaptureFixture) -> None:
    denoiser = merged(base, 1, dtype).cuda()
    passes = CudaGraphRunner(denoiser, None)
    for seed in range(3):
        latents, timestep, text = (each.cuda() for each in inputs(base))
        latents = latents + seed
        expected = denoiser(latents, timestep + seed, text)
        replayed = passes(latents, timestep + seed, text, ForwardOptions())
        assert (replayed - expected).norm() <= REPLAY_TOLERANCE * expected.norm()
    assert not caplog.text  # else it was not replayed


@pytest.mark.skipif(not torch.cuda.is_available(), reason="passes are recorded and compiled on CUDA devices alone")
@pytest.mark.parametrize("off", [Switch.CUDA_GRAPHS, Switch.COMPILED])
@torch.no_grad()
def test_recorded_and_compiled_passes_are_the_plain_ones(base: Base, off: Switch) -> None:
    compiler, denoiser, given = Compiler(BACKEND), merged(base, 1).cuda(), [each.cuda() for each in inputs(base)]
    fast = predictor(denoiser, given[0].device, compiler)
    fast(*given, ForwardOptions())
    compiler.wait()
    output = fast(*given, ForwardOptions())
    with switches.plain(off):
        plain = predictor(denoiser, given[0].device, compiler)(*given, ForwardOptions())
    assert (output - plain).norm() <= REPLAY_TOLERANCE * plain.norm()


@torch.no_grad()
def test_without_recording_a_denoiser_runs_as_it_is_written(base: Base) -> None:
    denoiser, cuda = merged(base, 1), torch.device("cuda")
    assert isinstance(predictor(denoiser, cuda, None), CudaGraphRunner)
    assert predictor(denoiser, torch.device("cpu"), None) is denoiser
    with switches.plain(Switch.CUDA_GRAPHS):
        assert predictor(denoiser, cuda, None) is denoiser
