"""Group normalisation with channels-last activations on a CPU, for training and for sampling.

PyTorch's own backward pass for that layout takes 40 % of an autoencoder step, while the plain layout makes the bf16
convolutions twice as slow. Written over per-channel sums it is a handful of streaming passes, so convolutions can stay
channels-last. Without gradients PyTorch's kernel is slow for that layout in bf16 alone.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.runtime import switches
from model.runtime.switches import Switch

FEW_CELLS = 64
"""Up to so many cells per picture PyTorch's own passes are as fast."""


class _ChannelsLastGroupNorm(torch.autograd.Function):
    """y = γ (x − μ_g) / σ_g + β over groups of channels, `(B, H·W, C)` in memory."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        batch, channels, height, width = x.shape
        # Always computed in fp32: exact for half precision, whose own passes take longer.
        rows = x.permute(0, 2, 3, 1).reshape(batch, height * width, channels)
        full = rows.float()
        count = height * width * channels // groups
        total = full.sum(1).view(batch, groups, -1).sum(2) / count
        square = (full * full).sum(1).view(batch, groups, -1).sum(2) / count
        inverse = (square - total * total).clamp_min_(0).add_(eps).rsqrt_()
        mean_c = total.repeat_interleave(channels // groups, 1)
        inverse_c = inverse.repeat_interleave(channels // groups, 1)
        scale = inverse_c * weight.float()
        shift = bias.float() - mean_c * scale
        y = torch.addcmul(shift[:, None], full, scale[:, None]).to(x.dtype)
        ctx.save_for_backward(rows, weight, mean_c, inverse_c)
        ctx.groups, ctx.shape = groups, x.shape
        return y.view(batch, height, width, channels).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight, mean_c, inverse_c = ctx.saved_tensors
        batch, channels, height, width = ctx.shape
        groups, kind = ctx.groups, rows.dtype
        grad = grad_outputs[0].permute(0, 2, 3, 1).reshape(batch, height * width, channels).float()
        rows = rows.float()
        count = height * width * channels // groups
        sum_grad = grad.sum(1)
        sum_grad_x = (grad * rows).sum(1)
        sum_grad_hat = (sum_grad_x - mean_c * sum_grad) * inverse_c
        scale = inverse_c * weight.float()
        mean_1 = _group_mean(sum_grad * weight.float(), groups, count)
        mean_2 = _group_mean(sum_grad_hat * weight.float(), groups, count)
        factor = -mean_2 * inverse_c * inverse_c
        offset = -inverse_c * mean_1 - factor * mean_c
        result = torch.addcmul(offset[:, None], grad, scale[:, None]).addcmul_(rows, factor[:, None]).to(kind)
        result = result.view(batch, height, width, channels).permute(0, 3, 1, 2)
        return result, sum_grad_hat.sum(0).to(weight.dtype), sum_grad.sum(0).to(weight.dtype), None, None


def _group_mean(values: Tensor, groups: int, count: int) -> Tensor:
    batch, channels = values.shape
    return (values.view(batch, groups, -1).sum(2) / count).repeat_interleave(channels // groups, 1)


class ChannelsLastGroupNorm(nn.GroupNorm):
    """`nn.GroupNorm` whose 4-D training pass on a CPU keeps channels last."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name nn.GroupNorm gives it
        if input.dim() != 4 or input.device.type != "cpu" or input.shape[2:].numel() <= FEW_CELLS:
            return super().forward(input)
        out: Tensor = _ChannelsLastGroupNorm.apply(input, self.weight, self.bias, self.num_groups, self.eps)
        return out


class FullPrecisionGroupNorm(nn.GroupNorm):
    """`nn.GroupNorm` without gradients; on a CPU it converts bf16 to fp32, whose kernel is several times as fast."""

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or x.dtype is torch.float32:
            return super().forward(x)
        return F.group_norm(x.float(), self.num_groups, self.weight.float(), self.bias.float(), self.eps).to(x.dtype)


def use_channels_last_norms(network: nn.Module) -> None:
    """Give a network's group normalisations the training pass for channels-last activations, in place."""
    _replace_norms(network, ChannelsLastGroupNorm)


def use_full_precision_norms(network: nn.Module) -> None:
    """Give a network's group normalisations the inference pass for half-precision activations, in place."""
    _replace_norms(network, FullPrecisionGroupNorm)


def _replace_norms(network: nn.Module, kind: type[nn.GroupNorm]) -> None:
    if not switches.on(Switch.FUSED_NORM):
        return
    for module in network.modules():
        if type(module) is nn.GroupNorm:
            module.__class__ = kind


def use_channels_last(network: nn.Module) -> None:
    """Lay a network out channels-last and give its group normalisations the matching training pass, in place."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a gap of torch's own types
    use_channels_last_norms(network)
