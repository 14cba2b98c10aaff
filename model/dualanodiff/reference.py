"""Implements the released algorithm in its plain form, to compare speed and results with PairForge's own form.

Per pair and denoising step it makes one forward pass. For guidance, the pass carries two rows of either branch, without
the prompt and with it, as in the released pipeline. Every attention computes the branches one after the other, each
with its own LoRA beside the base product, `W x + s B A x`. SAIM stacks both outputs and attends over the two tokens
with five linear maps. Everything is in fp32. A training step does the same, encodes image and part again, and runs the
text encoder for every row.

It shares the weights of a `DualAnoDiffModel`, so a training step changes both forms. Where the released code draws a
latent from the autoencoder's posterior, the mean is used, as everywhere in PairForge; BCM is left out.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from model.data.pixels import to_images
from model.diffusion.attention import attentions
from model.diffusion.lora import lora_parameters
from model.diffusion.prompts import embed
from model.diffusion.schedulers import make_scheduler
from model.dualanodiff.adapter import DualAnoDiffAdapter
from model.dualanodiff.model import DualAnoDiffModel
from model.dualanodiff.saim import SAIM
from model.dualanodiff.unet import ANOMALY, GLOBAL, TwoBranchAttnProcessor
from model.masks.extraction import threshold_mask, tidy_mask, u2net_mask
from model.types import ImageArray, MaskArray

SCHEDULER = "DDIMScheduler"
"""Scheduler of the authors."""

BRANCHES = (GLOBAL, ANOMALY)


class InterleavedLora(nn.Module):
    """A layer with one unmerged LoRA per branch, `W x + s B A x`, one branch after the other.

    Args:
        layer: peft's layer, whose weights are shared; the branches' matrices are separate parameters.
    """

    def __init__(self, layer: LoraLayer) -> None:
        super().__init__()
        self.base = layer.get_base_layer()
        self.down, self.up, self.scaling = _apart(layer.lora_A), _apart(layer.lora_B), layer.scaling

    def branch(self, x: Tensor, name: str) -> Tensor:
        """Compute the rows of one branch."""
        out: Tensor = self.base(x) + self.scaling[name] * self.up[name](self.down[name](x))
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Compute the rows of both branches, `[global …, anomaly …]`."""
        return torch.cat([self.branch(rows, name) for rows, name in zip(x.chunk(2), BRANCHES, strict=True)])


def _apart(matrices: nn.ModuleDict) -> nn.ModuleDict:
    """Return the same layers over the same memory, with separate parameters."""
    memo = {id(each): nn.Parameter(each.detach()) for each in matrices.parameters()}
    return copy.deepcopy(matrices, memo)


class TwoTokenAttention(nn.Module):
    """SAIM as the paper describes it: the branches are two tokens that attend to each other."""

    def __init__(self, interaction: SAIM) -> None:
        super().__init__()
        self.weights = interaction

    def forward(self, hidden: Tensor) -> Tensor:
        """Compute what SAIM adds to `(2, B, N, C)`, branch axis first; same shape."""
        layers = self.weights
        tokens = torch.stack([hidden[0].flatten(0, 1), hidden[1].flatten(0, 1)], dim=1)
        x = layers.proj_in(layers.norm(tokens))
        query, key, value = layers.to_q(x), layers.to_k(x), layers.to_v(x)
        attended = F.scaled_dot_product_attention(query[:, None], key[:, None], value[:, None])[:, 0]
        return layers.to_out(attended).unflatten(0, hidden.shape[1:3]).movedim(2, 0)


class InterleavedAttention:
    """Attention processor that computes the branches one after the other, then SAIM."""

    def __init__(self, interaction: TwoTokenAttention) -> None:
        self.interaction = interaction

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """Attend over `(2 B, N, C)` hidden states; returns `(2 B, N, C)`, before the block's residual."""
        sources = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        outputs = []
        for name, own, source in zip(BRANCHES, hidden_states.chunk(2), sources.chunk(2), strict=True):
            query, key, value = (
                layer.branch(x, name).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
                for layer, x in ((attn.to_q, own), (attn.to_k, source), (attn.to_v, source))
            )
            attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
            outputs.append(attn.to_out[0].branch(attended, name))
        both = torch.stack(outputs)
        return (both + self.interaction(both)).flatten(0, 1) / attn.rescale_output_factor


class ReferenceDenoiser(nn.Module):
    """The two-branch U-Net in the plain form, sharing the unmerged weights of a model."""

    def __init__(self, model: DualAnoDiffModel) -> None:
        super().__init__()
        base = model.base.unet
        self._model = model
        self.unet = copy.deepcopy(base, {id(tensor): tensor for tensor in (*base.parameters(), *base.buffers())})
        for name, module in model.denoiser.unet.named_modules():
            if isinstance(module, LoraLayer):
                self.unet.set_submodule(name, InterleavedLora(module))
        trained = {name: attn.processor for name, attn in attentions(model.denoiser.unet).items()}
        for name, attn in attentions(self.unet).items():
            attn.set_processor(InterleavedAttention(_plain_interaction(trained[name])))

    def forward(self, latents: Tensor, timesteps: Tensor, text: Tensor) -> Tensor:
        """Predict like `TwoBranchUNet`: `(2, B, C, h, w)` latents, `(B,)` timesteps, `(2, B, L, D)` embeddings."""
        steps = timesteps.expand(latents.shape[1]).repeat(2)
        out: Tensor = self.unet(latents.flatten(0, 1), steps, text.flatten(0, 1)).sample
        return out.unflatten(0, latents.shape[:2])

    def trained(self) -> list[nn.Parameter]:
        """Return the parameters that a training of this form changes, in place of the model's own."""
        own = [parameter for parameter in self.unet.parameters() if parameter.requires_grad]
        return [*own, *self._model.interaction_parameters(), *lora_parameters(self._model.text_encoder)]


def _plain_interaction(processor: TwoBranchAttnProcessor) -> TwoTokenAttention:
    if not isinstance(processor.interaction, SAIM):
        raise TypeError("the reference form needs SAIM as trained, not folded")
    return TwoTokenAttention(processor.interaction)


@dataclass(frozen=True, slots=True)
class ReferencePair:
    """A pair generated by the reference form."""

    image: ImageArray
    part: ImageArray
    mask: MaskArray


@torch.no_grad()
def reference_latents(
    model: DualAnoDiffModel, denoiser: ReferenceDenoiser, noise: Tensor, steps: int, guidance: float, scheduler: str
) -> Tensor:
    """Denoise one pair, `(2, C, h, w)` noise → latents, with one forward pass of four rows per step."""
    solver = make_scheduler(scheduler, model.base.scheduler)
    solver.set_timesteps(steps, device=noise.device)
    text = guided_embeddings(model)
    latents = noise * solver.init_noise_sigma
    for timestep in solver.timesteps:
        scaled = solver.scale_model_input(latents, timestep)
        unconditional, conditional = denoiser(torch.stack([scaled, scaled], 1), timestep, text).unbind(1)
        prediction = unconditional + guidance * (conditional - unconditional)
        latents = solver.step(prediction, timestep, latents).prev_sample
    return latents


def guided_embeddings(model: DualAnoDiffModel) -> Tensor:
    """Return both branches' embeddings without the prompt and with it, `(2, 2, L, D)`."""
    prompts = model.prompt_embeddings()
    return torch.cat([model.empty_embedding()[None].expand_as(prompts), prompts], 1)


def reference_pair(adapter: DualAnoDiffAdapter, latents: Tensor) -> ReferencePair:
    """Decode image and part, one after the other, and find the part's mask."""
    image, part = (_picture(adapter, each[None]) for each in latents)
    found = u2net_mask(adapter.mask_net, part) if adapter.mask_net is not None else threshold_mask(part)
    return ReferencePair(image, part, tidy_mask(found))


def _picture(adapter: DualAnoDiffAdapter, latents: Tensor) -> ImageArray:
    vae = adapter.model.vae
    with torch.no_grad():
        pixels: Tensor = vae.decode(latents / vae.config.scaling_factor).sample
    return to_images(pixels.mean(1, keepdim=True).expand_as(pixels) if adapter.card["greyscale"] else pixels)[0]


def reference_loss(
    model: DualAnoDiffModel, denoiser: ReferenceDenoiser, pixels: Tensor, timesteps: Tensor, noise: Tensor
) -> Tensor:
    """Compute the loss of one training step, starting from pixels.

    Args:
        pixels: images and parts, `(2, B, 3, H, W)`.
        timesteps: `(B,)`.
        noise: `(2, B, C, h, w)`.
    """
    count = pixels.shape[1]
    with torch.no_grad():
        means = [model.vae.encode(images).latent_dist.mean for images in pixels]
    latents = model.vae.config.scaling_factor * torch.stack(means)
    text = embed(model.text_encoder, model.tokens.expand(-1, count, -1).flatten(0, 1)).unflatten(0, (2, count))
    prediction = denoiser(model.schedule.add_noise(latents, noise, timesteps), timesteps, text)
    target = model.schedule.target(latents, noise, timesteps)
    return F.mse_loss(prediction[0], target[0]) + F.mse_loss(prediction[1], target[1])
