"""LoRA by peft: one adapter per branch on the U-Net, one on the text encoder.

In a pass over `[global …, anomaly …]` each run of rows goes through its own branch's adapter:

    y = W x + B_global A_global x,        y' = W x' + B_anomaly A_anomaly x'

peft makes the layers, holds the matrices and reads and writes the files. A layer's matrices A of all branches are one
parameter, branch axis first, and so are its B; peft's are views of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from peft import LoraConfig, LoraModel, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.kernels.lora import BranchProduct, join
from model.runtime import switches
from model.runtime.switches import Switch

ATTENTION_TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
"""The paper's targets: q, k, v and out of every attention, self and cross."""

ALL_TARGETS = (
    *ATTENTION_TARGETS,
    "ff.net.0.proj",
    "ff.net.2",
    "proj_in",
    "proj_out",
    "conv1",
    "conv2",
    "conv_shortcut",
    "time_emb_proj",
    "conv_in",
    "conv_out",
    "downsamplers.0.conv",
    "upsamplers.0.conv",
    "time_embedding.linear_1",
    "time_embedding.linear_2",
)
"""Every weight that a small base needs to move: also feed-forward, convolutions and the time embedding."""

TEXT_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj")

TEXT_ADAPTER = "text"


@dataclass(slots=True)
class AdapterRouting:
    """Which adapter the rows of the running pass use: `(adapter name, number of rows)`, in the order of the rows.

    All adapters have the same number of rows, and come in the order in which they were put on the U-Net.
    """

    runs: list[tuple[str, int]] = field(default_factory=list)

    def checkpoint(self, module: nn.Module, *args: Any) -> Any:
        """Call `module` without keeping its activations; it runs again in the backward pass, for the same rows."""
        runs = self.runs
        return checkpoint(module, *args, use_reentrant=False, context_fn=lambda: (nullcontext(), self._restored(runs)))

    @contextmanager
    def _restored(self, runs: list[tuple[str, int]]) -> Iterator[None]:
        before, self.runs = self.runs, runs
        try:
            yield
        finally:
            self.runs = before


def add_branch_lora(
    unet: nn.Module, names: tuple[str, ...], targets: tuple[str, ...], rank: int, router: AdapterRouting
) -> nn.ParameterDict:
    """Put one LoRA per branch on the U-Net; base weights become frozen.

    Args:
        names: adapter names, one per branch.
        targets: endings of the module names that get one.
        rank: rank r; α = r, so the scale is 1.
        router: read at every pass.

    Returns:
        What is trained: module path (`/` in place of dots) and `/A` or `/B` → the matrices of all branches,
        `(branches, r, in, …)` and `(branches, out, r, …)`.
    """
    unet.requires_grad_(False)
    configs = {name: LoraConfig(r=rank, lora_alpha=rank, target_modules=list(targets)) for name in names}
    # One tuner for all: injecting them one by one warns of several adapters, which are meant here.
    tuner = LoraModel(unet, configs, names[0])
    for name in names[1:]:
        tuner.inject_adapter(unet, name)
    joined = nn.ParameterDict()
    for name, module in unet.named_modules():
        if isinstance(module, LoraLayer):
            key = name.replace(".", "/")
            base = module.get_base_layer()
            kinds = (module.lora_A, module.lora_B)
            joined[f"{key}/A"], joined[f"{key}/B"] = (
                join([each[branch] for branch in names], base.weight.device) for each in kinds
            )
            product = BranchProduct(base)
            module.forward = partial(_branch_forward, product, names, router, joined[f"{key}/A"], joined[f"{key}/B"])
    return joined


def add_text_lora(text_encoder: nn.Module, rank: int) -> None:
    """Put one LoRA, shared by both branches, on the text encoder's attention projections; the rest is frozen."""
    text_encoder.requires_grad_(False)
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(TEXT_TARGETS))
    inject_adapter_in_model(config, text_encoder, adapter_name=TEXT_ADAPTER)


def lora_parameters(network: nn.Module) -> list[nn.Parameter]:
    """The matrices of a network with one LoRA, in module order."""
    return [parameter for name, parameter in network.named_parameters() if "lora_" in name]


def _branch_forward(
    product: BranchProduct, names: tuple[str, ...], router: AdapterRouting, down: Tensor, up: Tensor, x: Tensor
) -> Tensor:
    """Send each run of rows through its own branch's A and B."""
    first, count = names.index(router.runs[0][0]), len(router.runs)
    down, up = down.narrow(0, first, count), up.narrow(0, first, count)
    return product(x, down, up) if switches.on(Switch.FUSED_LORA) else lora(product.base, x, down, up)


def lora(base: nn.Linear | nn.Conv2d, x: Tensor, down: Tensor, up: Tensor) -> Tensor:
    """Compute `W x + B A x`, with the same W and each branch's own A and B; α = r, so the scale is 1.

    Args:
        base: the frozen layer W.
        x: `(branches · B, …)`, the branches one after the other.
        down: `(branches, r, in, …)`, the matrices A.
        up: `(branches, out, r, …)`, the matrices B.
    """
    rows = zip(x.chunk(len(down)), down, up, strict=True)
    out: Tensor = base(x) + torch.cat([_low_rank(base, part, A, B) for part, A, B in rows])
    return out


def _low_rank(base: nn.Linear | nn.Conv2d, x: Tensor, A: Tensor, B: Tensor) -> Tensor:
    """Compute `B A x`; for convolutions A has the base's kernel, and B sees one cell."""
    if isinstance(base, nn.Linear):
        return F.linear(F.linear(x, A), B)
    return F.conv2d(F.conv2d(x, A, None, base.stride, base.padding, base.dilation, base.groups), B)
