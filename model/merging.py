"""A denoiser for sampling: every branch's LoRA merged into weights of its own, SAIM folded, all in one precision.

`W x + B A x · s = (W + s B A) x`, so merging is exact up to rounding and takes the small products out of every layer.
Both branches' weights differ, so each run of rows is multiplied with its own. The trained denoiser stays as it is.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from model.denoiser import TwoBranchDenoiser, attentions
from model.interaction import FoldedInteraction
from model.lora import BranchRouter


class MergedLayer(nn.Module):
    """A linear layer or a convolution with one weight per branch.

    Args:
        layer: peft's, whose base layer and adapters are merged; its own weights are not changed.
        router: read at every pass.
    """

    def __init__(self, layer: LoraLayer, router: BranchRouter) -> None:
        super().__init__()
        base = layer.get_base_layer()
        self.router = router
        self.convolution = (
            (base.stride, base.padding, base.dilation, base.groups) if isinstance(base, nn.Conv2d) else None
        )
        self.weights = nn.ParameterDict(
            {
                name: nn.Parameter(base.weight.detach() + layer.get_delta_weight(name), requires_grad=False)
                for name in layer.lora_A
            }
        )
        self.bias = None if base.bias is None else nn.Parameter(base.bias.detach().clone(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        runs = self.router.runs
        rows = x.split([count for _, count in runs])
        parts = [self._branch(part, self.weights[name]) for (name, _), part in zip(runs, rows, strict=True)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _branch(self, x: Tensor, weight: Tensor) -> Tensor:
        if self.convolution is None:
            return F.linear(x, weight, self.bias)
        stride, padding, dilation, groups = self.convolution
        return F.conv2d(x, weight, self.bias, stride, padding, dilation, groups)


class MergedDenoiser(TwoBranchDenoiser):
    """What `merge_for_sampling` makes."""


class _GroupNorm(nn.GroupNorm):
    """PyTorch's kernel for bf16 in channels-last takes several times as long on a CPU as that for fp32."""

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or x.dtype is torch.float32:
            return super().forward(x)
        return F.group_norm(x.float(), self.num_groups, self.weight.float(), self.bias.float(), self.eps).to(x.dtype)


def merge_for_sampling(
    trained: TwoBranchDenoiser, base: UNet2DConditionModel, dtype: torch.dtype = torch.float32
) -> MergedDenoiser:
    """A copy of a trained denoiser that computes the same in fewer operations.

    Args:
        trained: with LoRAs from `model.lora`.
        base: the U-Net without them, as it was before.
        dtype: of all weights and of the computation.
    """
    unet = copy.deepcopy(base)
    processors = {name: attn.processor for name, attn in attentions(trained.unet).items()}
    merged = MergedDenoiser(
        unet,
        {name: FoldedInteraction(processor.interaction) for name, processor in processors.items()},
        {name: copy.deepcopy(processor.injection) for name, processor in processors.items() if processor.injection}
        if trained.background is not None
        else None,
    )
    for name, module in trained.unet.named_modules():
        if isinstance(module, LoraLayer):
            unet.set_submodule(name, MergedLayer(module, merged.router))
    for module in unet.modules():
        if type(module) is nn.GroupNorm:
            module.__class__ = _GroupNorm
    merged.to(dtype=dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a gap of torch's own types
    return merged.eval().requires_grad_(False)
