"""SAIM: after every attention, the two branches exchange information token by token (DualAnoDiff, section "SAIM").

For the attention outputs φ(z), φ(z') of the global and the anomaly branch, per spatial token:

    x  = Linear(LayerNorm([φ(z), φ(z')]))                 stacked on the branch axis, (…, 2, c)
    y  = softmax(x W_q (x W_k)ᵀ / √c) x W_v               single head, over the 2 tokens
    φ ← φ + y W_o

There is no position term, so the module is equivariant to swapping the branches. A softmax over two tokens is a sigmoid
of the difference of their scores, which is how it is computed here.

For sampling all linear maps between the normalisation n = LayerNorm([φ(z), φ(z')]) and the output fold into two. With
d = n - n' (the other branch's n'), P, p the first map's weight and bias, and W_o W_v P the value path:

    w = sigmoid((PᵀW_kᵀW_q P n + PᵀW_kᵀ(W_q p + b_q)) · d / √c)        own weight
    φ ← φ + W_o W_v P (n' + w d) + W_o (W_v p + b_v) + b_o
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn


class BranchInteraction(nn.Module):
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
        if zero_init:
            nn.init.zeros_(self.to_out.weight)
            nn.init.zeros_(self.to_out.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """`(2, B, N, C)` attention outputs, branch axis first → what is to be added to them, same shape."""
        x = self.proj_in(self.norm(hidden))
        q, k, v = self.to_q(x), self.to_k(x), self.to_v(x)
        other_k, other_v = k.flip(0), v.flip(0)
        own_weight = torch.sigmoid((q * (k - other_k)).sum(-1, keepdim=True) / math.sqrt(k.shape[-1]))
        # On GPUs autocast sums in full precision, and lerp takes no mixture.
        out: Tensor = self.to_out(torch.lerp(other_v, v, own_weight.to(v.dtype)))
        return out


class FoldedInteraction(nn.Module):
    """The same function as an interaction's with two linear maps instead of five, for sampling.

    Args:
        interaction: what is folded; its weights are not changed, and later changes of it are not followed.
    """

    def __init__(self, interaction: BranchInteraction) -> None:
        super().__init__()
        channels = interaction.proj_in.in_features
        self.norm = copy.deepcopy(interaction.norm)
        # Built without initialising: the global random state is nobody's to move.
        self.score, self.out = (nn.utils.skip_init(nn.Linear, channels, channels) for _ in range(2))
        # Products of weights in double precision: folding costs no digit.
        first, query, key, value, last = (
            (layer.weight.detach().double(), layer.bias.detach().double())
            for layer in (
                interaction.proj_in,
                interaction.to_q,
                interaction.to_k,
                interaction.to_v,
                interaction.to_out,
            )
        )
        onto_key = first[0].T @ key[0].T
        with torch.no_grad():
            self.score.weight.copy_(onto_key @ query[0] @ first[0])
            self.score.bias.copy_(onto_key @ (query[0] @ first[1] + query[1]))
            self.out.weight.copy_(last[0] @ value[0] @ first[0])
            self.out.bias.copy_(last[0] @ (value[0] @ first[1] + value[1]) + last[1])

    def forward(self, hidden: Tensor) -> Tensor:
        """As `BranchInteraction`."""
        own = self.norm(hidden)
        other = own.flip(0)
        difference = own - other
        weight = torch.sigmoid((self.score(own) * difference).sum(-1, keepdim=True) / math.sqrt(own.shape[-1]))
        out: Tensor = self.out(torch.addcmul(other, difference, weight))
        return out
