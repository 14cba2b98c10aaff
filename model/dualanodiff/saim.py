"""SAIM: after every attention, the two branches exchange information token by token (DualAnoDiff, section "SAIM").

For the attention outputs φ(z), φ(z') of the global and the anomaly branch, per spatial token:

    x  = Linear(LayerNorm([φ(z), φ(z')]))                 stacked on the branch axis, (…, 2, c)
    y  = softmax(x W_q (x W_k)ᵀ / √c) x W_v               single head, over the 2 tokens
    φ ← φ + y W_o

There is no position term, so the module is equivariant to swapping the branches. A softmax over two tokens is a sigmoid
of the difference of their scores, which is how it is computed here.

All linear maps between the normalisation n = LayerNorm([φ(z), φ(z')]) and the output fold into two. With d = n - n'
(the other branch's n'), P, p the first map's weight and bias, and W_o W_v P the value path:

    w = sigmoid((PᵀW_kᵀW_q P n + PᵀW_kᵀ(W_q p + b_q)) · d / √c)        own weight
    φ ← φ + W_o W_v P (n' + w d) + W_o (W_v p + b_v) + b_o

For sampling they are folded once. In training they are folded in every step where that costs less than three maps over
all tokens: folding takes five products of c × c weights.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from model.kernels.saim import FoldedSAIMFunction

FOLDED_ABOVE = 2
"""Tokens of both branches per channel from which on training folds."""


class SAIM(nn.Module):
    """Self-attention interaction of one attention layer of width `channels`.

    Args:
        channels: width c of the attention's output.
        zero_init: start with W_o = 0, so that the pretrained network is undisturbed at step 0. The authors' released
            code does not (False), which perturbs the pretrained network at the start.
    """

    def __init__(self, channels: int, *, zero_init: bool = True) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.proj_in = nn.Linear(channels, channels)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.Linear(channels, channels)
        # A constant added to both keys cancels in the difference of their scores: there is nothing to learn.
        self.to_k.bias.requires_grad_(False)
        if zero_init:
            nn.init.zeros_(self.to_out.weight)
            nn.init.zeros_(self.to_out.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """`(2, B, N, C)` attention outputs, branch axis first → what is to be added to them, same shape."""
        channels = hidden.shape[-1]
        if hidden.numel() > FOLDED_ABOVE * channels**2:
            # Weights are multiplied in full precision: they are few, and all tokens pass through them.
            with torch.autocast(hidden.device.type, enabled=False):
                maps = self.folded(torch.float32)
            # On GPUs autocast normalises in full precision, which all that follows would be in as well.
            folded: Tensor = FoldedSAIMFunction.apply(self.norm(hidden).to(hidden.dtype), *maps)
            return folded
        x = self.proj_in(self.norm(hidden))
        q, k, v = self.to_q(x), self.to_k(x), self.to_v(x)
        other_k, other_v = k.flip(0), v.flip(0)
        own_weight = torch.sigmoid((q * (k - other_k)).sum(-1, keepdim=True) / math.sqrt(channels))
        # On GPUs autocast sums in full precision, and lerp takes no mixture.
        out: Tensor = self.to_out(torch.lerp(other_v, v, own_weight.to(v.dtype)))
        return out

    def folded(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Weight and bias of the map to the scores, weight and bias of the map to the output, multiplied in `dtype`."""
        layers = (self.proj_in, self.to_q, self.to_k, self.to_v, self.to_out)
        first, query, key, value, last = ((layer.weight.to(dtype), layer.bias.to(dtype)) for layer in layers)
        onto_key = (key[0] @ first[0]).T
        onto_output = last[0] @ value[0]
        return (
            onto_key @ (query[0] @ first[0]),
            onto_key @ (query[0] @ first[1] + query[1]),
            onto_output @ first[0],
            onto_output @ first[1] + last[0] @ value[1] + last[1],
        )
