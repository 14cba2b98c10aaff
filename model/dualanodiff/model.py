"""The model of pairs: two-branch denoiser with LoRAs, SAIM and BCM, text encoder with its LoRA, nested prompts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from transformers import CLIPTextModel, PreTrainedTokenizerBase

from model.diffusion.base import Base
from model.diffusion.lora import ALL_TARGETS, ATTENTION_TARGETS, add_branch_lora, add_text_lora, lora_parameters
from model.diffusion.noise_schedule import NoiseSchedule
from model.diffusion.prompts import embed, tokenize
from model.dualanodiff.prompts import good_prompts, nested_prompts
from model.dualanodiff.unet import ANOMALY, GLOBAL, TwoBranchUNet
from model.kernels.group_norm import use_channels_last_norms
from model.runtime.shared_weights import sharing_weights
from service.core.errors import UsageError
from service.core.options.dualanodiff import TrainingConfig


@dataclass(slots=True)
class DualAnoDiffModel:
    """The networks, the noise schedule and the prompts of one adapter; the base's own weights are never changed.

    Attributes:
        schedule: its tensor lies on the base's device, as tokens do.
        tokens: `(2, 1, L)` ids of the global and the anomaly prompt.
        good_tokens: the same of the prompts of a part without a defect.
        empty: `(1, L)` ids of the empty prompt.
    """

    base: Base
    config: TrainingConfig
    denoiser: TwoBranchUNet
    text_encoder: CLIPTextModel
    schedule: NoiseSchedule
    tokens: Tensor
    good_tokens: Tensor
    empty: Tensor

    @property
    def vae(self) -> AutoencoderKL:
        """The base's autoencoder."""
        return self.base.vae

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The base's tokenizer."""
        return self.base.tokenizer

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.base.device

    def prompt_embeddings(self) -> Tensor:
        """`(2, 1, L, D)`: global and anomaly prompt."""
        return self._embedded(self.tokens)

    def training_embeddings(self) -> Tensor:
        """`(2, P, L, D)`: as `prompt_embeddings`, then, where good parts are learned from, their prompts."""
        learns_good = self.config.composites and self.config.prior_share
        return self._embedded(torch.cat([self.tokens, self.good_tokens], 1) if learns_good else self.tokens)

    def _embedded(self, tokens: Tensor) -> Tensor:
        """`(2, P, L)` ids → `(2, P, L, D)`."""
        return embed(self.text_encoder, tokens.flatten(0, 1)).unflatten(0, (2, -1))

    def empty_embedding(self) -> Tensor:
        """`(1, L, D)`: the unconditional prompt of classifier-free guidance."""
        return embed(self.text_encoder, self.empty)

    def trainable(self) -> dict[str, nn.Parameter]:
        """Name → parameter of all that few-shot training changes: LoRAs, SAIM, BCM, text LoRA."""
        return {
            name: parameter
            for part, network in (("denoiser", self.denoiser), ("text_encoder", self.text_encoder))
            for name, parameter in ((f"{part}.{key}", value) for key, value in network.named_parameters())
            if parameter.requires_grad
        }

    def interaction_parameters(self) -> list[nn.Parameter]:
        """SAIM's and BCM's parameters, which have a learning rate of their own."""
        modules = [self.denoiser.interaction] + ([self.denoiser.background] if self.denoiser.background else [])
        return [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]

    def lora_parameters(self) -> list[nn.Parameter]:
        """All LoRA matrices: both branches', then the text encoder's."""
        return [*self.denoiser.lora.values(), *lora_parameters(self.text_encoder)]


def build_model(base: Base, config: TrainingConfig, object_name: str, defect_name: str) -> DualAnoDiffModel:
    """Put fresh adapters on a base; new weights are drawn from `config.seed`.

    Raises:
        UsageError: the base's SAIM weights do not fit its U-Net, or its tokenizer does not know a word.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        unet = sharing_weights(base.unet)
        use_channels_last_norms(unet)
        denoiser = TwoBranchUNet.fresh(
            unet, with_background=config.bcm, with_saim=config.saim, zero_init=not config.reference_init
        )
        if base.interaction is not None and config.saim and not config.reference_init:
            try:
                denoiser.interaction.load_state_dict(base.interaction)
            except RuntimeError as error:
                raise UsageError(f"{base.folder / 'interaction'} does not fit the base's U-Net: {error}") from error
        targets = ALL_TARGETS if config.lora_targets == "all" else ATTENTION_TARGETS
        denoiser.lora = add_branch_lora(unet, (GLOBAL, ANOMALY), targets, config.rank, denoiser.router)
        text_encoder = sharing_weights(base.text_encoder)
        if config.text_rank:
            add_text_lora(text_encoder, config.text_rank)
    denoiser.to(base.device)
    text_encoder.to(base.device)
    if config.gradient_checkpointing:
        unet.enable_gradient_checkpointing(denoiser.router.checkpoint)
    prompts = nested_prompts(object_name, defect_name, config.prompts)
    _check_words(base, prompts)
    return DualAnoDiffModel(
        base=base,
        config=config,
        denoiser=denoiser,
        text_encoder=text_encoder,
        schedule=NoiseSchedule.from_config(base.scheduler, base.device),
        tokens=tokenize(base.tokenizer, prompts)[:, None].to(base.device),
        good_tokens=tokenize(base.tokenizer, good_prompts(object_name, config.prompts))[:, None].to(base.device),
        empty=tokenize(base.tokenizer, [""]).to(base.device),
    )


def _check_words(base: Base, prompts: tuple[str, str]) -> None:
    unknown = base.tokenizer.unk_token_id
    if base.tokenizer.unk_token_id == base.tokenizer.eos_token_id:  # CLIP's: every word has tokens
        return
    words = sorted({word for prompt in prompts for word in prompt.split()})
    strange = [word for word in words if unknown in base.tokenizer(word, add_special_tokens=False)["input_ids"]]
    if strange:
        raise UsageError(
            f"the base's tokenizer does not know {', '.join(strange)}: "
            "use the rare tokens (prompts rare), or words that it knows"
        )
