from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from transformers import AutoTokenizer

from tests.support.tiny_base import PIXEL_SIZE, TOKENS, build_tiny_base


@pytest.mark.parametrize(("base", "prediction"), [("tiny_base", "epsilon"), ("tiny_v_base", "v_prediction")])
def test_loads_as_any_stable_diffusion_base_and_draws(
    base: str, prediction: str, request: pytest.FixtureRequest
) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(request.getfixturevalue(base))
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    images = pipeline("a vfx with sks", num_inference_steps=2, generator=generator, output_type="np").images
    assert pipeline.scheduler.config.prediction_type == prediction
    assert images.shape == (1, PIXEL_SIZE, PIXEL_SIZE, 3)


def test_its_words_are_single_tokens_between_start_and_end(tiny_base: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_base / "tokenizer")
    ids = tokenizer("a VFX with sks", padding="max_length").input_ids
    assert len(ids) == TOKENS
    assert tokenizer.convert_ids_to_tokens(ids[:7]) == ["<start>", "a", "vfx", "with", "sks", "<end>", "<pad>"]


def test_the_same_seed_gives_the_same_weights(tiny_base: Path, tmp_path: Path) -> None:
    again = build_tiny_base(tmp_path)
    for part in ("unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model"):
        name = f"{part}.safetensors"
        assert (again / name).read_bytes() == (tiny_base / name).read_bytes(), name
