"""Makes the embedded base's tokenizer, of whole words in the captions' vocabulary, and its small CLIP text encoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from model.dualanodiff.prompts import RARE_DEFECT, RARE_OBJECT

MAX_TOKENS = 32
"""Length of a prompt in tokens: enough for words and sixteen learnt vectors of a mask."""


def build_tokenizer(words: Sequence[str]) -> PreTrainedTokenizerFast:
    """Make a tokenizer with one token per known word, or `<unk>`; texts become `<bos> … <eos>`, padded to 32 tokens."""
    special = ["<pad>", "<bos>", "<eos>", "<unk>"]
    ordered = [*special, RARE_OBJECT, RARE_DEFECT, *sorted(set(words) - {RARE_OBJECT, RARE_DEFECT})]
    vocabulary = {word: index for index, word in enumerate(ordered)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", vocabulary["<bos>"]), ("<eos>", vocabulary["<eos>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        model_max_length=MAX_TOKENS,
    )


def build_text_encoder(vocabulary_size: int, width: int, layers: int, seed: int) -> CLIPTextModel:
    """Make a CLIP text encoder with weights drawn from `seed`."""
    torch.manual_seed(seed)
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary_size,
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=layers,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
    )
