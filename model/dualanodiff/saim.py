"""SAIM: after every attention, the two branches exchange information token by token (DualAnoDiff, section "SAIM").

For the attention outputs φ(z), φ(z') of the global and the anomaly branch, per spatial token:

    x  = Linear(LayerNorm([φ(z), φ(z')]))                 the two branches are two tokens, (…, 2, c)
    y  = softmax(Q Kᵀ / √c) V                             Q, K, V = x W_q, x W_k, x W_v; a single head
    φ ← φ + y W_o

There is no position term, so the module is equivariant to swapping the branches.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from model.kernels.saim import fused_saim
from model.runtime import switches
from model.runtime.switches import Switch


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

    def attend(self, hidden: Tensor) -> Tensor:
        """Let the two branches' tokens attend to each other; arguments and result are those of `forward`."""
        x = self.proj_in(self.norm(hidden.movedim(0, -2)))  # (B, N, 2, C)
        q, k, v = self.to_q(x), self.to_k(x), self.to_v(x)
        weights = (q @ k.mT / math.sqrt(hidden.shape[-1])).softmax(-1)
        y = weights.to(v.dtype) @ v
        added: Tensor = self.to_out(y)
        return added.movedim(-2, 0)

    def forward(self, hidden: Tensor) -> Tensor:
        """Compute what is to be added to the attention outputs.

        Args:
            hidden: `(2, B, N, C)`, branch axis first.

        Returns:
            The same shape.
        """
        return fused_saim(self, hidden) if switches.on(Switch.FUSED_SAIM) else self.attend(hidden)
