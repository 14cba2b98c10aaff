"""Removes single optimisations from our form of sampling, with the library's own parts."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from model.diffusion.attention import attentions
from model.diffusion.lora import AdapterRouting
from model.dualanodiff.reference import TwoTokenAttention
from model.dualanodiff.sampling.merged_unet import MergedUNet
from model.dualanodiff.unet import ForwardOptions, TwoBranchUNet

Change = Callable[[MergedUNet, TwoBranchUNet], None]
"""Removes an optimisation from a merged denoiser in place; the second argument is the trained one."""


class UnmergedLayer(nn.Module):
    """Layer with one separate LoRA per branch, `W x + s B A x`, each run of rows with its own."""

    def __init__(self, layer: LoraLayer, router: AdapterRouting, dtype: torch.dtype) -> None:
        super().__init__()
        self.router = router
        self.base, self.down, self.up = (
            copy.deepcopy(part).to(dtype=dtype) for part in (layer.get_base_layer(), layer.lora_A, layer.lora_B)
        )
        self.scaling = dict(layer.scaling)

    def forward(self, x: Tensor) -> Tensor:
        runs = self.router.runs
        rows = x.split([count for _, count in runs])
        updates = [self.scaling[name] * self.up[name](self.down[name](part)) for (name, _), part in zip(runs, rows)]  # noqa: B905 - as many as `split` got
        out: Tensor = self.base(x) + torch.cat(updates)
        return out


def unmerged(merged: MergedUNet, trained: TwoBranchUNet) -> None:
    """Keep LoRAs separate from the weights."""
    for name, module in trained.unet.named_modules():
        if isinstance(module, LoraLayer):
            layer = UnmergedLayer(module, merged.router, merged.dtype).requires_grad_(False)
            merged.unet.set_submodule(name, layer.to(memory_format=torch.channels_last))  # type: ignore[call-overload]  # a gap of torch's own types


def unfolded(merged: MergedUNet, trained: TwoBranchUNet) -> None:
    """Compute SAIM like the reference form: attention over two tokens, five linear maps."""
    plain = {name: attn.processor.interaction for name, attn in attentions(trained.unet).items()}
    for name, attn in attentions(merged.unet).items():
        own = copy.deepcopy(plain[name]).to(dtype=merged.dtype).requires_grad_(False)
        attn.processor.interaction = TwoTokenAttention(own)


def guided_apart(merged: MergedUNet, trained: TwoBranchUNet) -> None:
    """Run one pass for the rows with prompts, and another for those without."""
    together = merged.forward

    def apart(latents: Tensor, timesteps: Tensor, text: Tensor, run: ForwardOptions | None = None) -> Tensor:
        halves = zip(latents.chunk(2, 1), text.chunk(2, 1), strict=True)
        return torch.cat([together(part, timesteps, words, run) for part, words in halves], dim=1)

    merged.forward = apart  # type: ignore[method-assign]


def channels_first(merged: MergedUNet, trained: TwoBranchUNet) -> None:
    """Keep weights, and so activations, in PyTorch's default memory layout."""
    merged.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # a gap of torch's own types


def plain_group_norm(merged: MergedUNet, trained: TwoBranchUNet) -> None:
    """Use PyTorch's own kernel, in the current precision."""
    for module in merged.unet.modules():
        if isinstance(module, nn.GroupNorm):
            module.__class__ = nn.GroupNorm
