"""LoRA by peft: one adapter per branch on the U-Net, one on the text encoder.

Every sample of a batch goes through its own branch's adapter: peft's layers take `adapter_names`, one per row, also in
training; a hook on each layer hands them over, so the U-Net's own code need not know.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from peft import LoraConfig, LoraModel, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn
from torch.utils.checkpoint import checkpoint

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
)
"""Every weight that a small base needs to move: also feed-forward, convolutions and the time embedding."""

TEXT_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj")

TEXT_ADAPTER = "text"


@dataclass(slots=True)
class BranchRouter:
    """Which adapter each row of the running pass uses."""

    names: list[str] = field(default_factory=list)

    def checkpoint(self, module: nn.Module, *args: Any) -> Any:
        """Call `module` without keeping its activations; it runs again in the backward pass, for the same rows."""
        names = self.names
        return checkpoint(module, *args, use_reentrant=False, context_fn=lambda: (nullcontext(), self._named(names)))

    @contextmanager
    def _named(self, names: list[str]) -> Iterator[None]:
        before, self.names = self.names, names
        try:
            yield
        finally:
            self.names = before


def add_branch_lora(
    unet: nn.Module, names: tuple[str, ...], targets: tuple[str, ...], rank: int, router: BranchRouter
) -> None:
    """Put one LoRA per branch on the U-Net; base weights become frozen, every adapter trainable.

    Args:
        names: adapter names, one per branch.
        targets: endings of the module names that get one.
        rank: rank r; α = r, so the scale is 1.
        router: read at every pass.
    """
    unet.requires_grad_(False)
    configs = {name: LoraConfig(r=rank, lora_alpha=rank, target_modules=list(targets)) for name in names}
    # One tuner for all: injecting them one by one warns of several adapters, which are meant here.
    tuner = LoraModel(unet, configs, names[0])
    for name in names[1:]:
        tuner.inject_adapter(unet, name)
    for module in unet.modules():
        if isinstance(module, LoraLayer):
            module.set_adapter(list(names))
            module.register_forward_pre_hook(partial(_route, router), with_kwargs=True)


def add_text_lora(text_encoder: nn.Module, rank: int) -> None:
    """Put one LoRA, shared by both branches, on the text encoder's attention projections; the rest is frozen."""
    text_encoder.requires_grad_(False)
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(TEXT_TARGETS))
    inject_adapter_in_model(config, text_encoder, adapter_name=TEXT_ADAPTER)


def lora_parameters(network: nn.Module) -> list[nn.Parameter]:
    """The LoRA matrices of a network, in module order."""
    return [parameter for name, parameter in network.named_parameters() if "lora_" in name]


def _route(router: BranchRouter, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    kwargs["adapter_names"] = router.names
    return args, kwargs
