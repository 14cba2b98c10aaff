"""Learned words: where they stand in a prompt, and that the text encoder itself stays as it is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from model.anomalydiffusion.model import build_model
from model.anomalydiffusion.words import SpatialEncoder, first_vector, known_tokens, spliced_prompt
from model.diffusion.base import Base, load_base
from model.diffusion.prompts import embed, tokenize
from service.core.errors import UsageError
from tests.support.tiny_anomaly import tiny_config


@pytest.fixture(scope="module")
def base(tiny_sd_base: Path) -> Base:
    return load_base(str(tiny_sd_base))


def line(row: int, side: int = 32) -> torch.Tensor:
    mask = torch.zeros(1, 1, side, side)
    mask[..., row, 4:-4] = 1
    return mask


def test_prompts_have_the_shape_of_stable_diffusion_15(base: Base) -> None:
    model = build_model(base, tiny_config(), ["crack", "break"])
    text = model.text(torch.tensor([0, 1]), torch.cat([line(4), line(20)]))
    assert text.shape == (2, 77, 768)
    assert model.embeddings.vectors.shape == (2, 4, 768)
    assert not torch.equal(text[0], text[1])


def test_spliced_words_equal_the_same_words_written_out(base: Base) -> None:
    """With the vectors of real words in the room, the prompt is an ordinary one."""
    prompt = spliced_prompt(base.tokenizer, 2)
    ids = prompt.tokens[0, prompt.first : prompt.first + 2].clone()
    ids[0], ids[1] = (known_tokens(base.tokenizer, word)[0] for word in ("crack", "tile"))
    written = prompt.tokens.clone()
    written[0, prompt.room] = ids
    table = base.text_encoder.get_input_embeddings().weight
    with torch.no_grad():
        spliced = prompt.embed(base.text_encoder, table[ids][None])
        torch.testing.assert_close(spliced, embed(base.text_encoder, written))
        plain = embed(base.text_encoder, tokenize(base.tokenizer, ["a tile"]))
        torch.testing.assert_close(plain, embed(base.text_encoder, tokenize(base.tokenizer, ["a tile"])))


def test_words_begin_as_the_word_anomaly(base: Base) -> None:
    table = base.text_encoder.get_input_embeddings().weight
    (number,) = known_tokens(base.tokenizer, "anomaly")
    assert torch.equal(first_vector(base.text_encoder, base.tokenizer), table[number].detach())


def test_words_that_a_word_level_tokenizer_does_not_know_are_left_out(tiny_base: Path) -> None:
    tokenizer = load_base(str(tiny_base)).tokenizer
    assert known_tokens(tokenizer, "photo") == []
    assert spliced_prompt(tokenizer, 8).first == 4  # start, a, of, a


def test_too_many_words_for_a_base_are_refused_with_both_numbers(tiny_base: Path) -> None:
    with pytest.raises(UsageError, match="16 learned words need prompts of 21 tokens, but this base's have 16"):
        spliced_prompt(load_base(str(tiny_base)).tokenizer, 16)


def test_the_place_of_a_hairline_is_seen_on_a_large_window() -> None:
    encoder = SpatialEncoder(8, 1.0).eval()
    with torch.no_grad():
        upper, lower, none = encoder(torch.cat([line(40, 512), line(400, 512), torch.zeros(1, 1, 512, 512)]))
    assert (upper - lower).abs().max() > 1e-3
    assert (upper - none).abs().max() > 1e-3


def test_only_words_encoder_and_lora_are_trained(base: Base) -> None:
    model = build_model(base, tiny_config(), ["crack"])
    assert {name.partition(".")[0] for name in model.trainable()} == {"unet", "embeddings", "spatial"}
    assert all("lora_" in name for name in model.trainable() if name.startswith("unet."))
    pure = build_model(base, tiny_config(fill_rank=0, spatial=False), ["crack"])
    assert list(pure.trainable()) == ["embeddings.vectors"]
    assert sum(len(parameters) for parameters, _ in model.groups()) == len(model.trainable())
