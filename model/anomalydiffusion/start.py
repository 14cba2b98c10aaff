"""A start for adapters: what a base has learned about filling masks before it sees any defect of the user's.

Few-shot training alone must teach a small base to draw exactly into a mask, and what the defect looks like. The first
is the same for all defects, so a base may bring it along: `fill/fill.safetensors` holds a LoRA, the weights by which
the U-Net sees masks, the encoder of masks, and four words that stand for "filled". A defect type begins as these words
plus its name's, where the base knows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor

from model.anomalydiffusion.model import FILL_ADAPTER, AnomalyDiffusionModel
from model.anomalydiffusion.words import FIRST_WORD, known_tokens
from model.diffusion.stored_weights import under

WORDS = "words"
"""Name of the words that stand for "filled", `(4, D)`."""


def save_start(path: Path, model: AnomalyDiffusionModel, words: Tensor) -> None:
    """Write the start that a model has learned.

    Args:
        words: `(4, D)`, what all types have in common.
    """
    parts = {
        "unet": get_peft_model_state_dict(model.unet, adapter_name=FILL_ADAPTER),
        **{name: module.state_dict() for name, module in model.learned().items() if name != "embeddings"},
    }
    tensors = {f"{part}.{name}": tensor for part, state in parts.items() for name, tensor in state.items()}
    found = {name: tensor.detach().cpu().half().contiguous() for name, tensor in (tensors | {WORDS: words}).items()}
    save_file(found, path)


def take_start(model: AnomalyDiffusionModel) -> bool:
    """Begin with what the base has learned; returns whether it has, and whether it suits the settings.

    It does not without sight of the mask or without words for it, nor with another rank.
    """
    start = model.base.filling
    if start is None or model.shown is None or model.spatial is None or not model.config.fill_rank:
        return False
    lora = under(start, "unet.")
    own = get_peft_model_state_dict(model.unet, adapter_name=FILL_ADAPTER)
    if {name: each.shape for name, each in own.items()} != {name: each.shape for name, each in lora.items()}:
        return False
    set_peft_model_state_dict(model.unet, lora, adapter_name=FILL_ADAPTER)
    model.shown.load_state_dict(under(start, "inpainting."))
    model.spatial.load_state_dict(under(start, "spatial."))
    vectors = torch.stack([first_words(model, start[WORDS].float(), name) for name in model.types])
    with torch.no_grad():
        model.embeddings.vectors.copy_(vectors)
    return True


def first_words(model: AnomalyDiffusionModel, common: Tensor, name: str) -> Tensor:
    """Return `(4, D)`: the words that a defect type begins as."""
    table = model.text_encoder.get_input_embeddings().weight.detach()
    return common.to(table) + table[name_tokens(model, name)].mean(0)


def name_tokens(model: AnomalyDiffusionModel, name: str) -> Sequence[int]:
    """Return the ids of a type's name, as far as the tokenizer knows its words; without any, those of "anomaly"."""
    tokenizer = model.base.tokenizer
    words = name.replace("_", " ").replace("-", " ").lower().split()
    known = [token for word in words for token in known_tokens(tokenizer, word)]
    return known or known_tokens(tokenizer, FIRST_WORD)
