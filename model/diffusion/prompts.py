"""Makes nested prompts and their embeddings (DualAnoDiff, "nested prompts")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from service.core.options.common import PromptStyle

if TYPE_CHECKING:  # users of the words alone start without torch
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase

RARE_OBJECT, RARE_DEFECT = "vfx", "sks"
"""Rare tokens for object and defect; the paper found them to work better than the names."""

NO_DEFECT = "no defect"
"""Prompt of the anomaly branch for a part without a defect; not empty, because guidance leads away from that."""


def nested_prompts(object_name: str, defect_name: str, style: PromptStyle) -> tuple[str, str]:
    """Return `(global, anomaly)` prompts; the anomaly prompt is the part of the global one that names the defect."""
    x, y = (RARE_OBJECT, RARE_DEFECT) if style == "rare" else (object_name, defect_name)
    return f"a {x} with {y}", y


def good_prompts(object_name: str, style: PromptStyle) -> tuple[str, str]:
    """Return `(global, anomaly)` prompts for a part without a defect."""
    return f"a {RARE_OBJECT if style == 'rare' else object_name}", NO_DEFECT


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
