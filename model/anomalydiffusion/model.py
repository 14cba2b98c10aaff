"""The model of AnomalyDiffusion: a frozen base, learned words and the encoder of masks.

A small base needs more: a LoRA, and sight of the masks (`model.anomalydiffusion.inpainting`). It may come with a start
of all that, made in pretraining.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import CLIPTextModel

from model.anomalydiffusion.inpainting import show_masks
from model.anomalydiffusion.reweighting import use_reweighting
from model.anomalydiffusion.words import (
    ANOMALY_WORDS,
    PLACE_WORDS,
    AnomalyEmbeddings,
    SpatialEncoder,
    SplicedPrompt,
    first_vector,
    spliced_prompt,
)
from model.diffusion.base import Base
from model.diffusion.lora import ALL_TARGETS, ATTENTION_TARGETS, lora_parameters
from model.diffusion.noise_schedule import NoiseSchedule
from model.diffusion.prompts import embed, tokenize
from model.kernels.batch_invariance import fixed_batches
from model.kernels.group_norm import use_channels_last_norms, use_full_precision_norms
from model.runtime.shared_weights import sharing_frozen_weights, sharing_weights
from service.core.options.anomalydiffusion import AnomalyTrainingConfig

FILL_ADAPTER = "fill"


@dataclass(slots=True)
class AnomalyDiffusionModel:
    """The networks and the prompt of one adapter; the base's own weights are never changed.

    Attributes:
        types: names of the defect types, in the order of their embeddings.
        unet: the base's U-Net, with a LoRA where one is trained.
        shown: the weights by which it sees masks, or None.
        embeddings: e_a of every type.
        spatial: the encoder of masks, or None.
        empty: `(1, L)` ids of the empty prompt.
    """

    base: Base
    config: AnomalyTrainingConfig
    types: Sequence[str]
    unet: UNet2DConditionModel
    shown: nn.Conv2d | None
    text_encoder: CLIPTextModel
    embeddings: AnomalyEmbeddings
    spatial: SpatialEncoder | None
    schedule: NoiseSchedule
    prompt: SplicedPrompt
    empty: Tensor

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.base.device

    @property
    def anomaly_words(self) -> slice:
        """Positions in the prompt of the words of the defect type."""
        return slice(self.prompt.first, self.prompt.first + ANOMALY_WORDS)

    def text(self, types: Tensor, masks: Tensor) -> Tensor:
        """Embed the prompts of defects: `(B, L, D)`.

        Args:
            types: `(B,)` numbers of defect types.
            masks: `(B, 1, r, r)` in [0, 1], where each defect lies in the model's window.
        """
        vectors = self.embeddings(types)
        if self.spatial is not None:
            places = self.spatial(masks) if self.spatial.training else fixed_batches(self.spatial, masks)
            vectors = torch.cat([vectors, places], dim=1)
        return self.prompt.embed(self.text_encoder, vectors)

    def empty_text(self) -> Tensor:
        """`(1, L, D)`: the unconditional prompt of classifier-free guidance."""
        return embed(self.text_encoder, self.empty)

    def networks(self) -> nn.ModuleList:
        """All networks, to switch them between training and evaluation."""
        return nn.ModuleList([self.unet, self.text_encoder, *self._words().values()])

    def learned(self) -> dict[str, nn.Module]:
        """Name → module of what is learned beside the LoRA."""
        return self._words() if self.shown is None else {**self._words(), "inpainting": self.shown}

    def _words(self) -> dict[str, nn.Module]:
        spatial = {} if self.spatial is None else {"spatial": self.spatial}
        return {"embeddings": self.embeddings, **spatial}

    def trainable(self) -> dict[str, nn.Parameter]:
        """Name → parameter of all that few-shot training changes."""
        parts: Mapping[str, nn.Module] = {"unet": self.unet, **self._words()}
        return {
            f"{part}.{name}": parameter
            for part, network in parts.items()
            for name, parameter in network.named_parameters()
            if parameter.requires_grad
        }

    def groups(self) -> list[tuple[Sequence[nn.Parameter], float]]:
        """Return the trained parameters with their learning rates."""
        groups: list[tuple[Sequence[nn.Parameter], float]] = [
            (list(self.embeddings.parameters()), self.config.embedding_lr)
        ]
        if self.spatial is not None:
            groups.append((list(self.spatial.parameters()), self.config.encoder_lr))
        if self.config.fill_rank:
            groups.append((lora_parameters(self.unet), self.config.lr))
        if self.shown is not None:
            groups.append((list(self.shown.parameters()), self.config.lr))
        return groups


def build_model(base: Base, config: AnomalyTrainingConfig, types: Sequence[str]) -> AnomalyDiffusionModel:
    """Put fresh words, encoder and LoRA on a base; new weights are drawn from `config.seed`.

    Raises:
        UsageError: the base's prompts are too short.
    """
    prompt = spliced_prompt(base.tokenizer, ANOMALY_WORDS + (PLACE_WORDS if config.spatial else 0))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        unet = sharing_weights(base.unet)
        use_channels_last_norms(unet)
        if config.fill_rank:
            targets = ALL_TARGETS if config.lora_targets == "all" else ATTENTION_TARGETS
            lora = LoraConfig(r=config.fill_rank, lora_alpha=config.fill_rank, target_modules=list(targets))
            inject_adapter_in_model(lora, unet, adapter_name=FILL_ADAPTER)
        shown = show_masks(unet, base.factor) if config.inpainting else None
        text_encoder = sharing_weights(base.text_encoder)
        table = text_encoder.get_input_embeddings().weight
        embeddings = AnomalyEmbeddings(first_vector(text_encoder, base.tokenizer), len(types))
        spatial = SpatialEncoder(table.shape[1], float(table.std())) if config.spatial else None
    for network in (unet, embeddings, *([spatial] if spatial is not None else [])):
        network.to(base.device)
    if config.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    return AnomalyDiffusionModel(
        base=base,
        config=config,
        types=tuple(types),
        unet=unet,
        shown=shown,
        text_encoder=text_encoder,
        embeddings=embeddings,
        spatial=spatial,
        schedule=NoiseSchedule.from_config(base.scheduler, base.device),
        prompt=SplicedPrompt(prompt.tokens.to(base.device), prompt.first, prompt.words),
        empty=tokenize(base.tokenizer, [""]).to(base.device),
    )


def unet_for_sampling(
    model: AnomalyDiffusionModel, dtype: torch.dtype, *, filling: bool = True
) -> UNet2DConditionModel:
    """Copy the U-Net in one precision, with attentions that can be re-weighted.

    Args:
        filling: whether to merge the LoRA, and to let the U-Net see masks; without, it is the base's.
    """
    unet = sharing_frozen_weights(model.base.unet)
    if filling and model.shown is not None:
        show_masks(unet, model.base.factor).load_state_dict(model.shown.state_dict())
    for name, module in model.unet.named_modules():
        if filling and isinstance(module, LoraLayer):
            layer = unet.get_submodule(name)
            merged = module.get_base_layer().weight.detach() + module.get_delta_weight(FILL_ADAPTER).detach()
            layer.weight = nn.Parameter(merged, requires_grad=False)
    use_full_precision_norms(unet)
    use_reweighting(unet)
    nn.Module.to(unet, dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]  # a gap of torch's own types
    return unet.eval()
