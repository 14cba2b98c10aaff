"""Words that are learned: anomaly embeddings per defect type, and the place of the mask from a small encoder.

The prompt is "a photo of a *" (AnomalyDiffusion, section 3.2). At the level of token embeddings `*` stands for

    [e_a ; e_s]        e_a = 4 vectors of the defect type,  e_s = 4 vectors of the mask M, E_s(M)

so the text encoder itself stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPTextModel, PreTrainedTokenizerBase

from model.diffusion.prompts import embed
from service.core.errors import UsageError

ANOMALY_WORDS, PLACE_WORDS = 4, 4
"""Vectors of a defect type, and of a mask (the paper's)."""

PROMPT = "a photo of a"
"""Before the learned words; words that a base's tokenizer does not know are left out."""

FIRST_WORD = "anomaly"
"""Anomaly embeddings begin as this word's (the paper's), where the tokenizer knows it."""

MASK_SIDE = 64
"""Side to which the encoder reduces a mask, cells."""

CHANNELS = (16, 32, 64, 64)
"""Of the encoder's layers, each of which halves the side."""


class AnomalyEmbeddings(nn.Module):
    """The vectors e_a of all defect types of an adapter.

    Args:
        first: `(D,)`, what all of them begin as.
        types: number of types.
        words: vectors of a type.
    """

    def __init__(self, first: Tensor, types: int, words: int = ANOMALY_WORDS) -> None:
        super().__init__()
        self.vectors = nn.Parameter(first.detach().float().cpu().expand(types, words, -1).clone())

    def forward(self, types: Tensor) -> Tensor:
        """Return `(B, words, D)` of type numbers `(B,)`."""
        return self.vectors[types]


class SpatialEncoder(nn.Module):
    """Encodes where a mask lies as vectors e_s.

    Args:
        width: D of the text encoder's words.
        scale: typical size of a number in these, which the vectors begin at.
    """

    def __init__(self, width: int, scale: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inner, outer in zip((2, *CHANNELS), CHANNELS, strict=False):
            layers += [nn.Conv2d(inner, outer, 3, stride=2, padding=1), nn.GroupNorm(8, outer), nn.SiLU()]
        self.body = nn.Sequential(*layers)
        cells = (MASK_SIDE // 2 ** len(CHANNELS)) ** 2
        self.squeeze = nn.Conv2d(CHANNELS[-1], 32, 1)
        self.head = nn.Linear(32 * cells, PLACE_WORDS * width)
        self.scale = scale

    def forward(self, masks: Tensor) -> Tensor:
        """Return `(B, 4, D)` of masks `(B, 1, r, r)` in [0, 1]."""
        # The mean tells how much of a cell is defect, the maximum keeps hairlines visible.
        side = (MASK_SIDE, MASK_SIDE)
        reduced = torch.cat([F.adaptive_avg_pool2d(masks, side), F.adaptive_max_pool2d(masks, side)], 1)
        hidden = F.silu(self.squeeze(self.body(reduced)))
        return self.scale * self.head(hidden.flatten(1)).unflatten(1, (PLACE_WORDS, -1))


@dataclass(frozen=True, slots=True)
class SplicedPrompt:
    """A prompt with room for learned words.

    Attributes:
        tokens: `(1, L)` ids; those of the room mean nothing.
        first: position of the first learned word.
        words: number of learned words.
    """

    tokens: Tensor
    first: int
    words: int

    @property
    def room(self) -> slice:
        """Positions of the learned words."""
        return slice(self.first, self.first + self.words)

    def embed(self, text_encoder: CLIPTextModel, vectors: Tensor) -> Tensor:
        """Return `(B, L, D)`, the text encoder's last hidden state with `vectors`, `(B, words, D)`, in the room."""

        def splice(_: nn.Module, __: object, found: Tensor) -> Tensor:
            before, after = found[:, : self.first], found[:, self.first + self.words :]
            return torch.cat([before, vectors.to(found.dtype), after], dim=1)

        handle = text_encoder.get_input_embeddings().register_forward_hook(splice)
        try:
            return embed(text_encoder, self.tokens.expand(len(vectors), -1))
        finally:
            handle.remove()


def spliced_prompt(tokenizer: PreTrainedTokenizerBase, words: int) -> SplicedPrompt:
    """Make the prompt with room for `words` learned words.

    Raises:
        UsageError: the base's prompts are too short for them.
    """
    before = [token for word in PROMPT.split() for token in known_tokens(tokenizer, word)]
    room = [before[-1] if before else tokenizer.eos_token_id] * words
    ids = [tokenizer.bos_token_id, *before, *room, tokenizer.eos_token_id]
    length = int(tokenizer.model_max_length)
    if len(ids) > length:
        raise UsageError(
            f"{words} learned words need prompts of {len(ids)} tokens, but this base's have {length}: use another base"
        )
    ids += [tokenizer.pad_token_id] * (length - len(ids))
    return SplicedPrompt(torch.tensor([ids]), 1 + len(before), words)


def known_tokens(tokenizer: PreTrainedTokenizerBase, word: str) -> list[int]:
    """Return the ids of a word; none if a word-level tokenizer does not know it."""
    ids: Sequence[int] = tokenizer(word, add_special_tokens=False)["input_ids"]
    by_word = tokenizer.unk_token_id != tokenizer.eos_token_id  # CLIP's has tokens for every word
    return [] if by_word and tokenizer.unk_token_id in ids else list(ids)


def first_vector(text_encoder: CLIPTextModel, tokenizer: PreTrainedTokenizerBase) -> Tensor:
    """Return `(D,)`: the embedding of the word that anomaly embeddings begin as, or the mean of all words."""
    table: Tensor = text_encoder.get_input_embeddings().weight.detach()
    ids = known_tokens(tokenizer, FIRST_WORD)
    return (table[ids] if ids else table).mean(0)
