"""Makes a denoiser for sampling: each branch's LoRA is merged into its own weights, SAIM is folded, in one precision.

`W x + B A x · s = (W + s B A) x`, so merging is exact up to rounding and removes the small products from every layer.
The branches' weights then differ, so each branch's rows are multiplied with their own. The trained denoiser is not
changed.

A row's result must not depend on the number of other rows, so that a pair is the same in any batch. On CPUs PyTorch's
kernels round differently for some numbers of rows; the code names each place where this was found.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from model.diffusion.attention import attentions
from model.diffusion.lora import AdapterRouting
from model.dualanodiff.saim import SAIM
from model.dualanodiff.unet import ForwardOptions, TwoBranchUNet
from model.kernels.batch_invariance import pad_single
from model.kernels.group_norm import use_full_precision_norms
from model.kernels.saim import fold, folded_saim
from model.runtime import switches
from model.runtime.shared_weights import sharing_frozen_weights
from model.runtime.switches import Switch

TIME_LAYERS = ("time_embedding.linear_1", "time_embedding.linear_2", "time_emb_proj")
"""Name endings of layers whose input depends on the timestep alone."""


class FoldedSAIM(nn.Module):
    """Computes the same as SAIM in fewer operations, for sampling.

    Args:
        interaction: the SAIM to fold; it is not changed, and later changes to it have no effect.
    """

    def __init__(self, interaction: SAIM) -> None:
        super().__init__()
        channels = interaction.proj_in.in_features
        self.norm = copy.deepcopy(interaction.norm)
        # Built without initialisation, which would change the global random state.
        self.score, self.out = (nn.utils.skip_init(nn.Linear, channels, channels) for _ in range(2))
        with torch.no_grad():
            # In double precision, so that folding loses no accuracy.
            maps = fold(interaction, torch.float64)
            targets = (self.score.weight, self.score.bias, self.out.weight, self.out.bias)
            for target, tensor in zip(targets, maps, strict=True):
                target.copy_(tensor)

    def forward(self, hidden: Tensor) -> Tensor:
        """Compute the same as `SAIM`."""
        return folded_saim(self.norm(hidden), self.score.weight, self.score.bias, self.out.weight, self.out.bias)[0]


class MergedLinear(nn.Module):
    """Linear layer with one weight per branch; runs of rows have equal length, and one batched product multiplies them.

    Args:
        bias: `(out,)`, shared by all branches, or None.
        weights: adapter name → `(out, in)`.
        router: read at every pass.
        same_rows: whether all rows of a run are equal, so that only one per run is computed. Its result then does not
            depend on the number of rows, although CPUs multiply a single row in another way than several.
    """

    def __init__(
        self, weights: Mapping[str, Tensor], bias: Tensor | None, router: AdapterRouting, *, same_rows: bool
    ) -> None:
        super().__init__()
        self.router = router
        self.same_rows = same_rows
        self.places = {name: place for place, name in enumerate(weights)}
        stacked = torch.stack([weight.T for weight in weights.values()])
        self.weight = nn.Parameter(stacked, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        runs = self.router.runs
        weight = self.weight.narrow(0, self.places[runs[0][0]], len(runs))
        rows = x.unflatten(0, (len(runs), -1))
        if self.same_rows:
            rows = rows[:, :1]
        flat = rows.flatten(1, -2)
        product = torch.bmm(flat, weight) if self.bias is None else torch.baddbmm(self.bias, flat, weight)
        shape = (len(runs), -1, *x.shape[1:-1], product.shape[-1])
        return product.view(shape).expand(-1, len(x) // len(runs), *shape[2:]).flatten(0, 1)


class MergedConvolution(nn.Module):
    """Convolution with one weight per branch.

    Args:
        base: the convolution without LoRA.
        weights: adapter name → `(out, in, h, w)`.
        router: read at every pass.
    """

    def __init__(self, base: nn.Conv2d, weights: Mapping[str, Tensor], router: AdapterRouting) -> None:
        super().__init__()
        self.router = router
        self.options = (base.stride, base.padding, base.dilation, base.groups)
        self.weights = nn.ParameterDict(
            {name: nn.Parameter(weight, requires_grad=False) for name, weight in weights.items()}
        )
        self.bias = None if base.bias is None else nn.Parameter(base.bias.detach().clone(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        runs = self.router.runs
        rows = x.split([count for _, count in runs])
        parts = [self._branch(part, self.weights[name]) for (name, _), part in zip(runs, rows, strict=True)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _branch(self, x: Tensor, weight: Tensor) -> Tensor:
        stride, padding, dilation, groups = self.options
        return pad_single(lambda rows: F.conv2d(rows, weight, self.bias, stride, padding, dilation, groups), x)


class MergedUNet(TwoBranchUNet):
    """The result of `merge_for_sampling`. All rows of a pass have the same timestep."""

    def forward(self, latents: Tensor, timesteps: Tensor, text: Tensor, run: ForwardOptions | None = None) -> Tensor:
        """Compute the same as `TwoBranchUNet`, for one timestep, a scalar."""
        _check_one(timesteps)
        return super().forward(latents, timesteps, text, run)

    def background_features(self, latents: Tensor, timesteps: Tensor, text: Tensor) -> dict[str, Tensor]:
        """Compute the same as `TwoBranchUNet`, for one timestep, a scalar."""
        _check_one(timesteps)
        return super().background_features(latents, timesteps, text)


class _SameRows(nn.Linear):
    """Linear layer whose input is the same in all rows."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x[:1]).expand(len(x), -1)


class _Conv2d(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return pad_single(super().forward, x)


def denoiser_for_sampling(
    trained: TwoBranchUNet, base: UNet2DConditionModel, dtype: torch.dtype = torch.float32
) -> TwoBranchUNet:
    """Merge a trained denoiser, or return it unchanged, in the precision of its weights.

    Args:
        trained, base, dtype: as in `merge_for_sampling`.
    """
    if switches.on(Switch.MERGED_UNET):
        return merge_for_sampling(trained, base, dtype)
    return trained.eval()


def merge_for_sampling(
    trained: TwoBranchUNet, base: UNet2DConditionModel, dtype: torch.dtype = torch.float32
) -> MergedUNet:
    """Copy a trained denoiser into one that computes the same in fewer operations.

    Args:
        trained: a denoiser with LoRAs from `model.diffusion.lora`.
        base: the original U-Net without LoRAs.
        dtype: type of all weights and of the computation.
    """
    unet = sharing_frozen_weights(base)
    processors = {name: attn.processor for name, attn in attentions(trained.unet).items()}
    merged = MergedUNet(
        unet,
        {name: _interaction(processor.interaction) for name, processor in processors.items()}
        if trained.interaction
        else None,
        {name: copy.deepcopy(processor.injection) for name, processor in processors.items() if processor.injection}
        if trained.background is not None
        else None,
    )
    for name, module in trained.unet.named_modules():
        if isinstance(module, LoraLayer):
            unet.set_submodule(name, _merged(module, merged.router, same_rows=name.endswith(TIME_LAYERS)))
    use_full_precision_norms(unet)
    for name, module in unet.named_modules():
        if type(module) is nn.Conv2d:
            module.__class__ = _Conv2d
        elif type(module) is nn.Linear and name.endswith(TIME_LAYERS):
            module.__class__ = _SameRows
    merged.to(dtype=dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a gap of torch's own types
    return merged.eval().requires_grad_(False)


def _interaction(trained: SAIM) -> nn.Module:
    return FoldedSAIM(trained) if switches.on(Switch.FUSED_SAIM) else copy.deepcopy(trained)


def _merged(layer: LoraLayer, router: AdapterRouting, *, same_rows: bool) -> nn.Module:
    base = layer.get_base_layer()
    weights = {name: base.weight.detach() + layer.get_delta_weight(name).detach() for name in layer.lora_A}
    if isinstance(base, nn.Conv2d):
        return MergedConvolution(base, weights, router)
    return MergedLinear(weights, base.bias, router, same_rows=same_rows)


def _check_one(timesteps: Tensor) -> None:
    if timesteps.ndim:
        raise ValueError(f"a merged denoiser takes one scalar timestep for all rows, but got {tuple(timesteps.shape)}")
