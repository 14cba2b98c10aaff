"""Prompts as token ids, and as the text encoder's embeddings."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase


def tokenize(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> Tensor:
    """Return `(N, L)` token ids, padded and cut to the tokenizer's length."""
    batch = tokenizer(
        list(texts), padding="max_length", truncation=True, max_length=tokenizer.model_max_length, return_tensors="pt"
    )
    ids: Tensor = batch["input_ids"]
    return ids


def embed(text_encoder: nn.Module, tokens: Tensor) -> Tensor:
    """Embed `(N, L)` token ids as `(N, L, D)`, the text encoder's last hidden state."""
    hidden: Tensor = text_encoder(tokens.to(next(text_encoder.parameters()).device)).last_hidden_state
    return hidden


def own_tokens(tokenizer: PreTrainedTokenizerBase, tokens: Tensor) -> list[int]:
    """Return the positions in `(L,)` of the prompt's own tokens, without begin, end and padding."""
    special = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    return [place for place, token in enumerate(tokens.tolist()) if token not in special]
