"""SAIM in its folded form, with gradients written out: fewer passes over the tokens."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def folded_saim(
    own: Tensor, score: Tensor, score_bias: Tensor, out: Tensor, out_bias: Tensor
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The folded form, all in one precision; the second is what its gradients need.

    With d = n - n' of global and anomaly branch, both branches' mixtures of n and n' are n' + sigmoid(s) d, where s is
    the branch's own score times d: for the anomaly branch sigmoid(s) is the other's weight.
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
