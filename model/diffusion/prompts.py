"""Nested prompts and their embeddings (DualAnoDiff, "nested prompts")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from service.core.options.common import PromptStyle

if TYPE_CHECKING:  # what only needs the words starts without torch
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase

RARE_OBJECT, RARE_DEFECT = "vfx", "sks"
"""Rare tokens for object and defect; the paper found them better than the names."""

NO_DEFECT = "no defect"
"""The anomaly branch's prompt for a part without a defect. Not the empty one, which guidance leads away from."""


def nested_prompts(object_name: str, defect_name: str, style: PromptStyle) -> tuple[str, str]:
    """`(global, anomaly)` prompts: the anomaly branch's is the part of the global one that names the defect."""
    x, y = (RARE_OBJECT, RARE_DEFECT) if style == "rare" else (object_name, defect_name)
    return f"a {x} with {y}", y


def good_prompts(object_name: str, style: PromptStyle) -> tuple[str, str]:
    """`(global, anomaly)` prompts of a part without a defect: what is left of the nested ones."""
    return f"a {RARE_OBJECT if style == 'rare' else object_name}", NO_DEFECT


def tokenize(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> Tensor:
    """`(N, L)` token ids, padded and cut to the tokenizer's length."""
    batch = tokenizer(
        list(texts), padding="max_length", truncation=True, max_length=tokenizer.model_max_length, return_tensors="pt"
    )
    ids: Tensor = batch["input_ids"]
    return ids


def embed(text_encoder: nn.Module, tokens: Tensor) -> Tensor:
    """`(N, L)` token ids → `(N, L, D)` embeddings, the text encoder's last hidden state."""
    hidden: Tensor = text_encoder(tokens.to(next(text_encoder.parameters()).device)).last_hidden_state
    return hidden


def own_tokens(tokenizer: PreTrainedTokenizerBase, tokens: Tensor) -> list[int]:
    """Where in `(L,)` tokens the prompt's own lie: all but those for begin, end and padding."""
    special = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    return [place for place, token in enumerate(tokens.tolist()) if token not in special]
