"""SAIM in fewer operations: a sigmoid for the softmax, two linear maps for five, gradients written out.

A softmax over two tokens is a sigmoid of the difference of their scores. And all linear maps between the normalisation
n = LayerNorm([φ(z), φ(z')]) and the output fold into two. With d = n - n' (the other branch's n'), P, p the first map's
weight and bias, and W_o W_v P the value path:

    w = sigmoid((PᵀW_kᵀW_q P n + PᵀW_kᵀ(W_q p + b_q)) · d / √c)        own weight
    φ ← φ + W_o W_v P (n' + w d) + W_o (W_v p + b_v) + b_o

For sampling the maps are folded once. In training they are folded in every step where that costs less than three maps
over all tokens: folding takes five products of c × c weights.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FOLDED_ABOVE = 2
"""Tokens of both branches per channel from which on training folds."""

Maps = tuple[Tensor, Tensor, Tensor, Tensor]
"""Weight and bias of the map to the scores, weight and bias of the map to the output."""


class SAIMLayers(Protocol):
    """The layers of a SAIM of width c: the linear maps are c × c each."""

    norm: nn.LayerNorm
    proj_in: nn.Linear
    to_q: nn.Linear
    to_k: nn.Linear
    to_v: nn.Linear
    to_out: nn.Linear


def fused_saim(layers: SAIMLayers, hidden: Tensor) -> Tensor:
    """Compute what `SAIM` adds to `(2, B, N, C)` attention outputs, in the cheaper of two forms."""
    channels = hidden.shape[-1]
    if hidden.numel() > FOLDED_ABOVE * channels**2:
        # Weights are multiplied in full precision: they are few, and all tokens pass through them.
        with torch.autocast(hidden.device.type, enabled=False):
            maps = fold(layers, torch.float32)
        # On GPUs autocast normalises in full precision, which all that follows would be in as well.
        folded: Tensor = FoldedSAIMFunction.apply(layers.norm(hidden).to(hidden.dtype), *maps)
        return folded
    x = layers.proj_in(layers.norm(hidden))
    q, k, v = layers.to_q(x), layers.to_k(x), layers.to_v(x)
    other_k, other_v = k.flip(0), v.flip(0)
    own_weight = torch.sigmoid((q * (k - other_k)).sum(-1, keepdim=True) / math.sqrt(channels))
    # On GPUs autocast sums in full precision, and lerp takes no mixture.
    out: Tensor = layers.to_out(torch.lerp(other_v, v, own_weight.to(v.dtype)))
    return out


def fold(layers: SAIMLayers, dtype: torch.dtype) -> Maps:
    """Multiply the five linear maps into two, in `dtype`."""
    linear = (layers.proj_in, layers.to_q, layers.to_k, layers.to_v, layers.to_out)
    first, query, key, value, last = ((layer.weight.to(dtype), layer.bias.to(dtype)) for layer in linear)
    onto_key = (key[0] @ first[0]).T
    onto_output = last[0] @ value[0]
    return (
        onto_key @ (query[0] @ first[0]),
        onto_key @ (query[0] @ first[1] + query[1]),
        onto_output @ first[0],
        onto_output @ first[1] + last[0] @ value[1] + last[1],
    )


def folded_saim(
    own: Tensor, score: Tensor, score_bias: Tensor, out: Tensor, out_bias: Tensor
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Compute the folded form, all in one precision.

    With d = n - n' of global and anomaly branch, both branches' mixtures of n and n' are n' + sigmoid(s) d, where s is
    the branch's own score times d: for the anomaly branch sigmoid(s) is the other's weight.

    Returns:
        What SAIM adds, and the tensors that its gradients need.
    """
    rows = own.flatten(1, -2)
    difference = rows[0] - rows[1]
    scores = _mapped(rows, score, score_bias)
    products = (scores * difference).sum(-1, keepdim=True)
    weight = torch.sigmoid(products / math.sqrt(own.shape[-1]))
    mixed = torch.addcmul(rows[1], weight, difference)
    return _mapped(mixed, out, out_bias).view_as(own), (rows, difference, scores, weight, mixed)


def _mapped(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`(2, n, c)` rows through a linear map."""
    if rows.device.type == "cpu":  # products of this shape take half as long batched over the branches
        return torch.baddbmm(bias, rows, weight.T.expand(2, -1, -1))
    return F.linear(rows, weight, bias)


class FoldedSAIMFunction(torch.autograd.Function):
    """`(2, B, N, c)` → the same shape, in the rows' precision; its gradients written out.

    Autograd takes twice as many passes over the tokens.
    """

    @staticmethod
    def forward(ctx: Any, own: Tensor, *maps: Tensor) -> Tensor:
        score, score_bias, out, out_bias = (each.to(own.dtype) for each in maps)
        with torch.autocast(own.device.type, enabled=False):
            result, kept = folded_saim(own, score, score_bias, out, out_bias)
        ctx.save_for_backward(score, out, *kept)
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        score, out, rows, difference, scores, weight, mixed = ctx.saved_tensors
        shape, grad = grad.shape, grad.flatten(1, -2)
        grad_mixed = torch.bmm(grad, out.expand(2, -1, -1))
        slope = (weight - weight * weight) / math.sqrt(rows.shape[-1])
        grad_products = (grad_mixed * difference).sum(-1, keepdim=True) * slope
        grad_scores = grad_products * difference
        # Adding two halves is several times as fast as a sum over so short an axis.
        by_branch = (grad_mixed * weight).addcmul_(grad_products, scores)
        grad_difference = by_branch[0] + by_branch[1]
        grad_own = torch.bmm(grad_scores, score.expand(2, -1, -1))
        grad_own[0] += grad_difference
        grad_own[1] += grad_mixed[0] + grad_mixed[1] - grad_difference
        grad_score, grad_out = torch.bmm(grad_scores.mT, rows), torch.bmm(grad.mT, mixed)
        biases = grad_scores.flatten(0, 1).sum(0), grad.flatten(0, 1).sum(0)
        return grad_own.view(shape), grad_score[0] + grad_score[1], biases[0], grad_out[0] + grad_out[1], biases[1]
