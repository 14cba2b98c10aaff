"""The two-branch U-Net: one forward pass of a diffusers U-Net over `[global …, anomaly …]`, with SAIM and BCM.

For the hidden states φ of the global branch and φ' of the anomaly branch, every attention computes

    φ_kv = φ + γ MLP(φ_b)                                  BCM, in self-attention; the prompt in cross-attention
    h, h' = Attention(φ, φ_kv), Attention(φ', φ')          each branch with its own LoRA
    h, h' ← SAIM(h, h')

The U-Net itself stays as diffusers built it; every attention gets a processor that knows the branches. What a pass
should do travels with it as an explicit `ForwardOptions` (through `cross_attention_kwargs`), never as hidden state.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from model.diffusion.attention import attend, attentions, merge, project, rescaled
from model.diffusion.lora import AdapterRouting
from model.dualanodiff.bcm import BackgroundCompensation
from model.dualanodiff.saim import SAIM

GLOBAL, ANOMALY = "global", "anomaly"


@dataclass(slots=True)
class ForwardOptions:
    """What one forward pass does in its attentions.

    Attributes:
        interact: rows are `[global …, anomaly …]` and exchange information through SAIM, where there is one; otherwise
            all rows are global.
        background: attention name → φ(z_b), injected into the global rows' self-attention; None for no BCM.
        record: filled with attention name → hidden state entering each self-attention; None to record nothing.
        attention_maps: filled with the anomaly rows' cross-attention maps, `(B, heads, h·w, L)` each; None for none.
    """

    interact: bool = True
    background: Mapping[str, Tensor] | None = None
    record: dict[str, Tensor] | None = None
    attention_maps: list[Tensor] | None = field(default=None)


class TwoBranchAttnProcessor:
    """Attention processor of one diffusers `Attention`: plain attention, BCM on its way in, SAIM on its way out.

    Args:
        name: the attention's module path in the U-Net.
        interaction: SAIM of this attention; None without SAIM.
        injection: BCM of this attention; None in cross-attentions and without BCM.
    """

    def __init__(self, name: str, interaction: nn.Module | None, injection: nn.Module | None) -> None:
        self.name = name
        self.interaction = interaction
        self.injection = injection

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        branches: ForwardOptions | None = None,
    ) -> Tensor:
        """`(rows, N, C)` hidden states → `(rows, N, C)` attention output, before the block's residual."""
        run = branches if branches is not None else ForwardOptions(interact=False)
        is_self = encoder_hidden_states is None
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        if is_self and run.record is not None:
            run.record[self.name] = hidden_states
        if is_self and run.background is not None and self.injection is not None:
            count = len(hidden_states) // 2 if run.interact else len(hidden_states)
            compensated = self.injection(hidden_states[:count], run.background[self.name])
            source = torch.cat([compensated, hidden_states[count:]])

        query, key, value = project(attn, hidden_states, source)
        if run.attention_maps is not None and not is_self:
            half = len(query) // 2 if run.interact else 0
            scores = query[half:] @ key[half:].transpose(-1, -2) / math.sqrt(query.shape[-1])
            run.attention_maps.append(scores.softmax(-1))
        hidden = merge(attn, attend(query, key, value))
        if run.interact and self.interaction is not None:
            hidden = hidden + self.interaction(hidden.unflatten(0, (2, -1))).flatten(0, 1)
        return rescaled(attn, hidden)


class TwoBranchUNet(nn.Module):
    """A U-Net with, optionally, SAIM after every attention and BCM in every self-attention.

    Args:
        unet: the diffusers U-Net; its attentions get processors that know the branches.
        interaction: attention name → SAIM; None without SAIM.
        background: self-attention name → BCM; None without BCM.

    Attributes:
        unet: the diffusers U-Net, base weights and LoRAs.
        lora: the LoRAs' matrices, as they are trained (`add_branch_lora`); empty without.
        interaction: attention name (dots replaced by `/`) → SAIM; empty without.
        background: self-attention name (likewise) → BCM, or None.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        interaction: Mapping[str, nn.Module] | None,
        background: Mapping[str, nn.Module] | None,
    ) -> None:
        super().__init__()
        self.unet = unet
        self.router = AdapterRouting()
        self.lora = nn.ParameterDict()
        for name, attn in attentions(unet).items():
            injection = background.get(name) if background is not None else None
            exchange = interaction[name] if interaction is not None else None
            attn.set_processor(TwoBranchAttnProcessor(name, exchange, injection))
        self.interaction = nn.ModuleDict({_key(name): module for name, module in (interaction or {}).items()})
        self.background = (
            nn.ModuleDict({_key(name): module for name, module in background.items()})
            if background is not None
            else None
        )

    @classmethod
    def fresh(
        cls, unet: UNet2DConditionModel, *, with_background: bool, with_saim: bool = True, zero_init: bool = True
    ) -> Self:
        """With new SAIM and new BCM, each if wanted."""
        found = attentions(unet)
        hidden = int(unet.config.block_out_channels[0])
        interaction = {name: SAIM(attn.out_dim, zero_init=zero_init) for name, attn in found.items()}
        background = {
            name: BackgroundCompensation(attn.query_dim, hidden)
            for name, attn in found.items()
            if not attn.is_cross_attention
        }
        return cls(unet, interaction if with_saim else None, background if with_background else None)

    @property
    def dtype(self) -> torch.dtype:
        """In which the U-Net computes, apart from autocasting."""
        dtype: torch.dtype = next(self.unet.parameters()).dtype  # diffusers looks at them all
        return dtype

    def forward(self, latents: Tensor, timesteps: Tensor, text: Tensor, run: ForwardOptions | None = None) -> Tensor:
        """Predict noise (or whatever the base predicts) for both branches in one pass.

        Args:
            latents: `(2, B, C_lat, h, w)`, noisy, branch axis first.
            timesteps: `(B,)` or scalar, the same for both branches.
            text: `(2, B, L, D)` prompt embeddings.
            run: options of this pass.

        Returns:
            `(2, B, C_lat, h, w)`.
        """
        run = run or ForwardOptions()
        count = latents.shape[1]
        self.router.runs = [(GLOBAL, count), (ANOMALY, count)]
        steps = timesteps.expand(count).repeat(2)
        output: Tensor = self.unet(
            latents.flatten(0, 1).to(self.dtype),
            steps,
            text.flatten(0, 1).to(self.dtype),
            cross_attention_kwargs={"branches": run},
        ).sample
        return output.unflatten(0, (2, count))

    def background_features(self, latents: Tensor, timesteps: Tensor, text: Tensor) -> dict[str, Tensor]:
        """φ(z_b) of every self-attention: the noised background `(B, C_lat, h, w)` in the global branch, without SAIM.

        They depend on background, timestep and global prompt only, so one set serves a whole batch.
        """
        record: dict[str, Tensor] = {}
        count = len(latents)
        self.router.runs = [(GLOBAL, count)]
        run = ForwardOptions(interact=False, record=record)
        self.unet(
            latents.to(self.dtype),
            timesteps.expand(count),
            text.to(self.dtype),
            cross_attention_kwargs={"branches": run},
        )
        return record


def _key(name: str) -> str:
    return name.replace(".", "/")
