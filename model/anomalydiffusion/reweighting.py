"""Adaptive attention re-weighting (AnomalyDiffusion, section 3.4): more attention where the defect is still faint.

With the noise-free latents x̂_0 that the last step implied and the normal's z_0, inside the mask m,

    w = ‖m‖₁ softmax(1 / ‖m ⊙ x̂_0 − m ⊙ z_0‖²)

multiplies what each place attends to the anomaly's words. Distances are taken relative to their mean, and damped, since
the softmax of raw ones is 1 at a single cell; w is clamped as in the released code. Attention alone does not make a
small base draw a defect along all of its mask: `faint_gains`, our addition, pushes faint places away from the normal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor

from model.diffusion.attention import attend, attentions, merge, project, rescaled

WEIGHTS = (1.0, 1.5)
"""Range that weights are clamped to."""

DAMPING = 0.5
"""Added to a relative distance; a cell without any change then weighs e² ≈ 7 times as much as one far from normal."""

AROUND = 5
"""Side of the square about a cell over whose part of the mask a change is averaged, cells; odd."""

WIDE = 5
"""Side of the smallest square that has no room in a stroke, cells; odd."""

CLEAR = 0.7
"""Share of a defect's places that are fainter than its clear ones."""


@dataclass(frozen=True, slots=True)
class Reweighting:
    """How strongly the places of a pass attend to some words.

    Attributes:
        weights: `(B, 1, h, w)`, 1 for no change.
        words: positions of the words in the prompt.
    """

    weights: Tensor
    words: slice


def attention_weights(clean: Tensor, normal: Tensor, mask: Tensor) -> Tensor:
    """Weigh every place by how little it differs from the normal yet.

    Args:
        clean: x̂_0, `(C, h, w)`.
        normal: z_0 of the normal image, the same shape.
        mask: `(1, h, w)` in {0, 1}.

    Returns:
        `(1, h, w)` in `WEIGHTS`; 1 outside the mask.
    """
    area = mask.sum()
    distance = ((clean - normal) * mask).square().sum(0, keepdim=True)
    relative = distance / (distance.sum() / area.clamp_min(1)).clamp_min(1e-8)
    faint = (1 / (relative + DAMPING)).masked_fill(mask == 0, -math.inf)
    if not area:
        return torch.ones_like(mask)
    spread = area * faint.flatten().softmax(0).view_as(mask)
    return torch.where(mask > 0, spread.clamp(*WEIGHTS), torch.ones_like(mask))


def faint_gains(clean: Tensor, normal: Tensor, mask: Tensor, most: float) -> Tensor:
    """Say how much more than its clear places a stroke's faint ones must be pushed away from the normal.

    The gain is what is missing to the change of clear places. It falls to 1 as a stroke comes out along its mask, so
    that gains do not pile up over the steps. What is wider than a stroke is left alone: parts of a break may look as
    the good part does, such as the tray that shows through it, and nothing is missing there.

    Args:
        clean: x̂_0, `(C, h, w)`.
        normal: z_0 of the normal image, the same shape.
        mask: `(1, h, w)` in {0, 1}.
        most: the largest gain.

    Returns:
        `(1, h, w)` in [1, `most`]; 1 outside strokes.
    """
    beside = F.pad(1 - mask, [WIDE // 2] * 4, value=1.0)
    room = 1 - F.max_pool2d(beside, WIDE, stride=1)
    stroke = mask * (1 - F.max_pool2d(room, WIDE + 2, stride=1, padding=WIDE // 2 + 1))
    change = (clean - normal).norm(dim=0, keepdim=True) * stroke
    total, count = (F.avg_pool2d(values, AROUND, stride=1, padding=AROUND // 2) for values in (change, stroke))
    local = total / count.clamp_min(1e-8)
    clear = torch.where(stroke > 0, local, math.nan).nanquantile(CLEAR).nan_to_num()
    return torch.where(stroke > 0, (clear / local.clamp_min(1e-8)).clamp(1, most), torch.ones_like(mask))


class ReweightedAttnProcessor:
    """Attention processor whose cross-attention can be re-weighted; without that, plain attention."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        reweighting: Reweighting | None = None,
    ) -> Tensor:
        """`(B, N, C)` hidden states → `(B, N, C)` attention output, before the block's residual."""
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = project(attn, hidden_states, source)
        if reweighting is None or encoder_hidden_states is None:
            hidden = attend(query, key, value)
        else:
            scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
            hidden = _reweighted(scores.float().softmax(-1), reweighting).to(value.dtype) @ value
        return rescaled(attn, merge(attn, hidden))


def _reweighted(attention: Tensor, reweighting: Reweighting) -> Tensor:
    """Multiply `(B, heads, N, L)` attention to some words by the weights at the layer's resolution."""
    height, width = reweighting.weights.shape[-2:]
    scale = round(math.sqrt(height * width / attention.shape[2]))
    weights = F.adaptive_avg_pool2d(reweighting.weights, (height // scale, width // scale)).flatten(2)
    factors = torch.ones_like(attention[:, :1])
    factors[..., reweighting.words] = weights[..., None]
    return attention * factors


def use_reweighting(unet: UNet2DConditionModel) -> None:
    """Give all attentions of a U-Net the processor that understands `cross_attention_kwargs={"reweighting": …}`."""
    for attn in attentions(unet).values():
        attn.set_processor(ReweightedAttnProcessor())
