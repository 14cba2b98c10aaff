"""`W x + B A x` of several branches at once: layers of a frozen base with a LoRA per branch, as they are trained.

The rows of a branch lie together and all branches have the same number, so products with matrices of a branch are
batched over the branches. With g the gradient of the output and h = A x, per branch:

    dB = gᵀ h,        dA = (g B)ᵀ x,        dx = g W + (g B) A

The base's weight W is the same for all branches, so one product takes all their rows. Small layers are cheaper merged,
with M = W + B A of each branch, computed in every pass in the parameters' own precision:

    dB = (gᵀ x) Aᵀ,   dA = Bᵀ (gᵀ x),       dx = g M

In half precision M is rounded once, as for sampling; unmerged W x and B A x are rounded each.

Written out as functions of their own because on small networks it is the number of operations that costs, and in
autograd's form every split, concatenation and sum of the branches is one, forwards and backwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MERGED_UP_TO = 2**16
"""Weights of the largest linear layer that is merged. In larger ones products of all rows outweigh their number."""

FEW_CELLS = 16
"""Cells that come out per picture, up to which a convolution on a CPU is a product of its neighbourhoods: its kernels
take longer to bring the weights into their form than to multiply."""

Strides = tuple[list[int], list[int], list[int], bool, list[int], int]
"""As `aten::convolution` takes them: stride, padding, dilation, transposed, output padding, groups."""

Sides = tuple[int, int]
"""Of height and width."""

Gradients = tuple[Tensor | None, ...]


def join(layers: Sequence[nn.Linear | nn.Conv2d], device: torch.device) -> nn.Parameter:
    """Make one parameter of the branches' own weights, which become views of it that are not trained themselves.

    Products and the optimiser take it whole: half as many tensors. Moving the network to another device or precision,
    or copying it, would separate it from the views: it is where it stays.

    Args:
        layers: of one shape, one per branch.

    Returns:
        `(branches, …)`, with the branches' weights.
    """
    joined = nn.Parameter(torch.stack([layer.weight.detach().to(device) for layer in layers]))
    for layer, own in zip(layers, joined.detach(), strict=True):
        layer.weight = nn.Parameter(own, requires_grad=False)
    return joined


class BranchProduct:
    """What a layer makes of the rows of all branches.

    On a CPU it keeps the frozen weight in the precision and layout that products want, beside the base's own:
    converting it takes as long as a product. On a GPU that would take memory and save little. For one thread at a time.

    Args:
        base: the layer without LoRA; frozen, so its weights must not change any more.
    """

    def __init__(self, base: nn.Linear | nn.Conv2d) -> None:
        self.base = base
        self._kept: dict[torch.dtype, tuple[Tensor, Tensor | None]] = {}

    def __call__(self, x: Tensor, down: Tensor, up: Tensor) -> Tensor:
        """Multiply.

        Args:
            x: `(branches · B, …, in)`, for convolutions `(branches · B, in, h, w)`; the branches one after the other.
            down: `(branches, r, in)` or `(branches, r, in, k, k)`, the matrices A.
            up: `(branches, out, r)` or `(branches, out, r, 1, 1)`, the matrices B.

        Returns:
            `(branches · B, …, out)` or `(branches · B, out, h', w')`, in autocast's precision if it is on.
        """
        base = self.base
        if isinstance(base, nn.Linear):
            return self._multiplied(x, down, up)
        if base.kernel_size == base.stride == (1, 1) and base.padding == (0, 0) and base.groups == 1:
            return self._multiplied(x.permute(0, 2, 3, 1), down.flatten(2), up.flatten(2)).permute(0, 3, 1, 2)
        if _few_cells(base, x):
            weight, bias = self._frozen(x)
            rows = _Neighbourhoods.apply(x.to(weight.dtype), base.kernel_size, base.stride, base.padding)
            weight, down = weight.permute(0, 2, 3, 1), down.permute(0, 1, 3, 4, 2)
            product: Tensor = _LinearProduct.apply(rows, weight.flatten(1), bias, down.flatten(2), up.flatten(2))
            return product.permute(0, 3, 1, 2)
        strides = (list(base.stride), list(base.padding), list(base.dilation), False, [0, 0], base.groups)
        convolved: Tensor = _ConvolutionProduct.apply(x, *self._frozen(x), strides, down, up)
        return convolved

    def _multiplied(self, rows: Tensor, down: Tensor, up: Tensor) -> Tensor:
        """`(…, in)` rows of a layer without neighbours."""
        out: Tensor
        if self.base.weight.numel() <= MERGED_UP_TO:
            out = _MergedProduct.apply(rows, self.base.weight, self.base.bias, down, up)
        else:
            out = _LinearProduct.apply(rows, *self._frozen(rows), down, up)
        return out

    def _frozen(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """The base's weight and bias, converted."""
        weight, bias, kind = self.base.weight, self.base.bias, _computed_in(x)
        if kind in self._kept:
            return self._kept[kind]
        layout = torch.channels_last if weight.ndim == 4 else torch.preserve_format
        converted = weight.to(kind, memory_format=layout), None if bias is None else bias.to(kind)
        if weight.device.type == "cpu":
            self._kept[kind] = converted
        return converted


class _MergedProduct(torch.autograd.Function):
    """`(branches · B, …, in)` → `(branches · B, …, out)` through W + B A of each branch."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor) -> Tensor:
        kind = _computed_in(x)
        whole = down.new_empty(len(down), *weight.flatten(1).shape)
        # Given where to put it, autocast leaves it in the matrices' own precision.
        torch.baddbmm(weight.flatten(1).to(down.dtype), up, down, out=whole)
        merged, rows = whole.to(kind), _branches(x.to(kind), down)
        out = torch.bmm(rows, merged.mT) if bias is None else torch.baddbmm(bias.to(kind), rows, merged.mT)
        ctx.save_for_backward(rows, merged, down, up)
        ctx.shape = x.shape
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        rows, merged, down, up = ctx.saved_tensors
        grad = _branches(grad, down)
        grad_merged = torch.bmm(grad.mT, rows).to(down.dtype)
        grad_x = torch.bmm(grad, merged).view(ctx.shape) if ctx.needs_input_grad[0] else None
        return grad_x, None, None, torch.bmm(up.mT, grad_merged), torch.bmm(grad_merged, down.mT)


class _LinearProduct(torch.autograd.Function):
    """`(branches · B, …, in)` → `(branches · B, …, out)` through W of all branches and B A of each."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor) -> Tensor:
        kind, weight = weight.dtype, weight.flatten(1)
        x, down, up = (each.to(kind) for each in (x, down, up))
        flat = x.flatten(0, -2)
        out = torch.mm(flat, weight.T) if bias is None else torch.addmm(bias, flat, weight.T)
        hidden = torch.bmm(_branches(flat, down), down.mT)
        _branches(out, down).baddbmm_(hidden, up.mT)
        ctx.save_for_backward(x, hidden, weight, down, up)
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        x, hidden, weight, down, up = ctx.saved_tensors
        flat = grad.flatten(0, -2)
        rows = _branches(flat, down)
        inner = torch.bmm(rows, up)
        grad_down = torch.bmm(inner.mT, _branches(x.flatten(0, -2), down))
        grad_up = torch.bmm(rows.mT, hidden)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = torch.mm(flat, weight)
            _branches(grad_x, down).baddbmm_(inner, down)
            grad_x = grad_x.view_as(x)
        return grad_x, None, None, grad_down, grad_up


class _Neighbourhoods(torch.autograd.Function):
    """`(B, C, H, W)` → `(B, h, w, k·k·C)`: what a convolution sees around each cell.

    `F.unfold` takes ten times as long in bf16.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Sides, stride: Sides, padding: Sides) -> Tensor:
        batch, channels, height, width = x.shape
        ctx.options = kernel, stride, padding
        ctx.shape = x.shape
        (down, right), (tall, wide), (above, beside) = stride, kernel, padding
        cells = F.pad(x.permute(0, 2, 3, 1), (0, 0, beside, beside, above, above)).contiguous()
        picture, row, cell, one = cells.stride()
        rows, columns = (height + 2 * above - tall) // down + 1, (width + 2 * beside - wide) // right + 1
        shape = batch, rows, columns, tall, wide, channels
        return cells.as_strided(shape, (picture, down * row, right * cell, row, cell, one)).flatten(3)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        (tall, wide), (down, right), (above, beside) = ctx.options
        batch, channels, height, width = ctx.shape
        parts = grad.unflatten(-1, (tall, wide, channels))
        rows, columns = grad.shape[1:3]
        cells = grad.new_zeros(batch, height + 2 * above, width + 2 * beside, channels)
        for y in range(tall):
            for x in range(wide):
                seen = cells[:, y : y + down * rows : down, x : x + right * columns : right]
                seen.add_(parts[:, :, :, y, x])
        inner = cells[:, above : above + height, beside : beside + width]
        return inner.permute(0, 3, 1, 2), None, None, None


class _ConvolutionProduct(torch.autograd.Function):
    """Computed in channels-last, where the channels of a cell are a row."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, strides: Strides, down: Tensor, up: Tensor
    ) -> Tensor:
        kind = weight.dtype
        x, up = _channels_last(x.to(kind)), up.flatten(2).to(kind)
        downs = [each.to(kind, memory_format=torch.channels_last) for each in down]
        out = _channels_last(torch.ops.aten.convolution(x, weight, bias, *strides))
        parts = zip(x.chunk(len(down)), downs, strict=True)
        hidden = torch.stack([_cells(torch.ops.aten.convolution(part, each, None, *strides)) for part, each in parts])
        _branches(_cells(out), up).baddbmm_(hidden, up.mT)
        ctx.save_for_backward(x, hidden, weight, up, *downs)
        ctx.kind, ctx.strides = down.dtype, strides
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        x, hidden, weight, up, *downs = ctx.saved_tensors
        needed, count = ctx.needs_input_grad[0], len(downs)
        grad = _channels_last(grad)
        rows = _branches(_cells(grad), up)
        grad_up = torch.bmm(rows.mT, hidden)[..., None, None]
        inner = torch.bmm(rows, up).view(*grad.shape[:1], *grad.shape[2:], -1).permute(0, 3, 1, 2)

        def backwards(out: Tensor, into: Tensor, through: Tensor, mask: list[bool]) -> Any:
            return torch.ops.aten.convolution_backward(out, into, through, None, *ctx.strides, mask)

        small = [
            backwards(part, into, each, [needed, True, False])
            for part, into, each in zip(inner.chunk(count), x.chunk(count), downs, strict=True)
        ]
        grad_x = None
        if needed:
            grad_x = backwards(grad, x, weight, [True, False, False])[0]
            for part, (share, _, _) in zip(grad_x.chunk(count), small, strict=True):
                part.add_(share)
        grad_down = x.new_empty(count, *downs[0].shape, dtype=ctx.kind)
        for own, (_, found, _) in zip(grad_down, small, strict=True):
            own.copy_(found)  # from channels-last, and in the parameters' precision
        return grad_x, None, None, None, grad_down, grad_up


def _computed_in(x: Tensor) -> torch.dtype:
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def _few_cells(base: nn.Conv2d, x: Tensor) -> bool:
    """Whether its neighbourhoods are cheaper than its kernel; they are made for plain convolutions."""
    plain = base.dilation == (1, 1) and base.groups == 1
    return plain and x.device.type == "cpu" and x.shape[2:].numel() <= FEW_CELLS * math.prod(base.stride)


def _branches(rows: Tensor, like: Tensor) -> Tensor:
    """`(branches · n, …, c)` rows → `(branches, n, c)`."""
    return rows.reshape(len(like), -1, rows.shape[-1])


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _cells(x: Tensor) -> Tensor:
    """`(B, C, h, w)` in channels-last → `(B·h·w, C)`."""
    return _channels_last(x).permute(0, 2, 3, 1).flatten(0, 2)
