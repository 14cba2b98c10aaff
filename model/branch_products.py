"""`W x + B A x` of several branches at once: layers of a frozen base with a LoRA per branch, as they are trained.

The base's weight W is the same for all branches, so one product takes all their rows. Their A and B differ: the rows of
a branch lie together and all branches have the same number, so the small products are batched over the branches. With
g the gradient of the output and h = A x, per branch:

    dB = gᵀ h,        dA = (g B)ᵀ x,        dx = g W + (g B) A

Written out as functions of their own because on small networks it is the number of operations that costs, and in
autograd's form every split, concatenation and sum of the branches is one, forwards and backwards.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

Strides = tuple[list[int], list[int], list[int], bool, list[int], int]
"""As `aten::convolution` takes them: stride, padding, dilation, transposed, output padding, groups."""


def branch_product(base: nn.Linear | nn.Conv2d, x: Tensor, down: Tensor, up: Tensor) -> Tensor:
    """What a layer makes of the rows of all branches.

    Args:
        base: the layer without LoRA; frozen.
        x: its input, of as many rows for each branch, the branches one after the other.
        down: `(branches, r, in)` or `(branches, r, in, k, k)`, the matrices A.
        up: `(branches, out, r)` or `(branches, out, r, 1, 1)`, the matrices B.
    """
    if isinstance(base, nn.Linear):
        return _LinearProduct.apply(x, base.weight, base.bias, down, up)
    if base.kernel_size == (1, 1):
        rows = x.permute(0, 2, 3, 1)
        weight, matrices = base.weight.flatten(1), (down.flatten(2), up.flatten(2))
        return _LinearProduct.apply(rows, weight, base.bias, *matrices).permute(0, 3, 1, 2)
    strides = (list(base.stride), list(base.padding), list(base.dilation), False, [0, 0], base.groups)
    return _ConvolutionProduct.apply(x, base.weight, base.bias, strides, down, up)


class _LinearProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor) -> Tensor:
        kind = _computed_in(x)
        x, weight, down, up = (tensor.to(kind) for tensor in (x, weight, down, up))
        flat = x.flatten(0, -2)
        out = torch.mm(flat, weight.T) if bias is None else torch.addmm(bias.to(kind), flat, weight.T)
        hidden = torch.bmm(_branches(flat, down), down.mT)
        _branches(out, down).baddbmm_(hidden, up.mT)
        ctx.save_for_backward(x, hidden, weight, down, up)
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, hidden, weight, down, up = ctx.saved_tensors
        flat = grad.flatten(0, -2)
        rows = _branches(flat, down)
        inner = torch.bmm(rows, up)
        grad_up = torch.bmm(rows.mT, hidden)
        grad_down = torch.bmm(inner.mT, _branches(x.flatten(0, -2), down))
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = torch.mm(flat, weight)
            _branches(grad_x, down).baddbmm_(inner, down)
            grad_x = grad_x.view_as(x)
        return grad_x, None, None, grad_down, grad_up


class _ConvolutionProduct(torch.autograd.Function):
    """Computed in channels-last, where the channels of a cell are a row."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, strides: Strides, down: Tensor, up: Tensor
    ) -> Tensor:
        kind = _computed_in(x)
        x, weight = _channels_last(x.to(kind)), _channels_last(weight.to(kind))
        bias, down, up = None if bias is None else bias.to(kind), down.to(kind), up.to(kind).flatten(2)
        out = _channels_last(torch.ops.aten.convolution(x, weight, bias, *strides))
        parts = zip(x.chunk(len(down)), down, strict=True)
        hidden = torch.stack([_cells(torch.ops.aten.convolution(part, each, None, *strides)) for part, each in parts])
        _branches(_cells(out), down).baddbmm_(hidden, up.mT)
        ctx.save_for_backward(x, hidden, weight, down, up)
        ctx.strides = strides
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, hidden, weight, down, up = ctx.saved_tensors
        needed = ctx.needs_input_grad[0]
        grad = _channels_last(grad)
        rows = _branches(_cells(grad), down)
        grad_up = torch.bmm(rows.mT, hidden)
        inner = torch.bmm(rows, up).view(*grad.shape[:1], *grad.shape[2:], -1).permute(0, 3, 1, 2)

        def backwards(out: Tensor, into: Tensor, through: Tensor, mask: list[bool]) -> Any:
            return torch.ops.aten.convolution_backward(out, into, through, None, *ctx.strides, mask)

        count = len(down)
        small = [
            backwards(part, into, each, [needed, True, False])
            for part, into, each in zip(inner.chunk(count), x.chunk(count), down, strict=True)
        ]
        grad_x = None
        if needed:
            grad_x = backwards(grad, x, weight, [True, False, False])[0]
            for part, (share, _, _) in zip(grad_x.chunk(count), small, strict=True):
                part.add_(share)
        return grad_x, None, None, None, torch.stack([each for _, each, _ in small]), grad_up[..., None, None]


def _computed_in(x: Tensor) -> torch.dtype:
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def _branches(rows: Tensor, like: Tensor) -> Tensor:
    """`(branches · n, c)` rows → `(branches, n, c)`."""
    return rows.reshape(len(like), -1, rows.shape[-1])


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _cells(x: Tensor) -> Tensor:
    """`(B, C, h, w)` in channels-last → `(B·h·w, C)`."""
    return _channels_last(x).permute(0, 2, 3, 1).flatten(0, 2)
