from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from model.diffusion.base import load_base
from model.diffusion.prompts import embed, tokenize
from model.dualanodiff.model import build_model
from model.dualanodiff.prompts import nested_prompts
from service.core.errors import UsageError
from tests.support.tiny_base import TOKENS
from tests.support.tiny_data import tiny_config


@pytest.mark.parametrize(
    ("style", "prompts"),
    [("rare", ("a vfx with sks", "sks")), ("names", ("a metal tile with crack", "crack"))],
)
def test_the_anomaly_prompt_is_nested_in_the_global_one(style: str, prompts: tuple[str, str]) -> None:
    assert nested_prompts("metal tile", "crack", style) == prompts


def test_prompts_are_embedded_as_diffusers_does(tiny_base: Path) -> None:
    base = load_base(str(tiny_base))
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_base)
    texts = ["a vfx with sks", "sks", ""]
    tokens = tokenize(base.tokenizer, texts)
    assert tokens.shape == (3, TOKENS)
    theirs, _ = pipeline.encode_prompt(texts, "cpu", 1, do_classifier_free_guidance=False)
    with torch.no_grad():
        torch.testing.assert_close(embed(base.text_encoder, tokens), theirs)


def test_a_prompt_too_long_is_cut(tiny_base: Path) -> None:
    base = load_base(str(tiny_base))
    assert tokenize(base.tokenizer, ["crack " * 50]).shape == (1, TOKENS)


def test_names_the_base_has_no_words_for_are_refused(tiny_base: Path) -> None:
    base = load_base(str(tiny_base))
    with pytest.raises(UsageError, match="does not know bolt, dent: use the rare tokens"):
        build_model(base, tiny_config(prompts="names"), "metal bolt", "dent")
    build_model(base, tiny_config(prompts="names"), "metal tile", "crack")
    build_model(base, tiny_config(), "metal bolt", "dent")
