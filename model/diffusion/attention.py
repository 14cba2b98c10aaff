"""The parts of an attention that every attention processor is made of."""

from __future__ import annotations

import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from model.kernels.attention import fused_attention
from model.runtime import switches
from model.runtime.switches import Switch


def attentions(unet: nn.Module) -> dict[str, Attention]:
    """Module path → attention, in module order."""
    return {name: module for name, module in unet.named_modules() if isinstance(module, Attention)}


def project(attn: Attention, hidden: Tensor, source: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return query, key and value, `(B, heads, N, c)` each.

    Args:
        hidden: `(B, N, C)`, what attends.
        source: `(B, M, D)`, what it attends to.
    """
    query, key, value = attn.to_q(hidden), attn.to_k(source), attn.to_v(source)
    return _split(query, attn.heads), _split(key, attn.heads), _split(value, attn.heads)


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Compute softmax(Q Kᵀ / √c) V over `(B, heads, N, c)`."""
    if switches.on(Switch.FUSED_ATTENTION):
        return fused_attention(query, key, value)
    return F.scaled_dot_product_attention(query, key, value)


def merge(attn: Attention, attended: Tensor) -> Tensor:
    """Put the heads `(B, heads, N, c)` together and project them, `(B, N, C)`."""
    merged: Tensor = attn.to_out[1](attn.to_out[0](attended.transpose(1, 2).flatten(2)))
    return merged


def rescaled(attn: Attention, hidden: Tensor) -> Tensor:
    """Scale the output as the block's residual expects it."""
    return hidden if attn.rescale_output_factor == 1 else hidden / attn.rescale_output_factor


def _split(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)
