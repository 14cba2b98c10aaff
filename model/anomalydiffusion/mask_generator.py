"""Learns to draw masks: textual inversion of the pictures of the real ones (AnomalyDiffusion, section 3.3).

Sixteen words per defect type are learned on white-on-black pictures of whole masks, with the base's own U-Net. What is
drawn from them is decoded and thresholded. It takes a base whose prompts have room for the words and that can draw
pictures of this kind at all; real masks that are changed at random need neither.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor

from model.anomalydiffusion.latent_dataset import Crops, cut_crops, encode_crops
from model.anomalydiffusion.model import AnomalyDiffusionModel
from model.anomalydiffusion.words import AnomalyEmbeddings, SplicedPrompt, first_vector, spliced_prompt
from model.diffusion.noise_schedule import draw_timesteps
from model.diffusion.schedulers import make_scheduler
from model.diffusion.vae import decode
from model.kernels.batch_invariance import fixed_batches
from model.runtime.progress import Progress
from model.runtime.seeding import draw_noise
from model.runtime.transfer import on_device
from model.training.loop import TrainingRun, optimise
from model.types import ImageArray, MaskArray, Pair

MASK_WORDS = 16
"""Vectors of a defect type's masks (the paper's)."""

STEPS, GUIDANCE, THRESHOLD = 50, 5.0, 0.8
"""Denoising steps (the paper's code takes 100 of DDIM), guidance, and the brightness from which a pixel is defect."""


@dataclass(slots=True)
class MaskWords:
    """The learned words of all types' masks, and the prompt with room for them."""

    embeddings: AnomalyEmbeddings
    prompt: SplicedPrompt


def new_mask_words(model: AnomalyDiffusionModel) -> MaskWords:
    """Begin with the word that anomaly embeddings begin as.

    Raises:
        UsageError: the base's prompts are too short.
    """
    base = model.base
    prompt = spliced_prompt(base.tokenizer, MASK_WORDS)
    embeddings = AnomalyEmbeddings(first_vector(model.text_encoder, base.tokenizer), len(model.types), MASK_WORDS)
    return MaskWords(
        embeddings.to(base.device), SplicedPrompt(prompt.tokens.to(base.device), prompt.first, prompt.words)
    )


def mask_pictures(pairs: Sequence[Pair], types: Sequence[int], model: AnomalyDiffusionModel) -> Crops:
    """Turn and mirror whole masks, as white-on-black pictures."""
    whole = replace(model.config, view="whole")
    blank = [Pair(pair.name, np.zeros((*pair.mask.shape, 3), np.uint8), pair.mask) for pair in pairs]
    crops = cut_crops(blank, types, whole)
    return Crops([picture(mask) for mask in crops.masks], crops.masks, crops.types)


def picture(mask: MaskArray) -> ImageArray:
    """Draw a mask in white on black, `(H, W, 3)` uint8."""
    return np.repeat(mask[..., None].astype(np.uint8) * 255, 3, axis=2)


def train_mask_words(
    words: MaskWords, model: AnomalyDiffusionModel, pairs: Sequence[Pair], types: Sequence[int], workspace: Path
) -> Generator[Progress, None, None]:
    """Learn the words in place, going on from the newest checkpoint in `workspace`.

    Raises:
        DivergedError: if a loss, or a word after the last step, is not finite.
    """
    base, schedule = model.base, model.schedule
    config = replace(model.config, steps=model.config.mask_generator_steps, warmup=0)
    dataset = yield from encode_crops(base, mask_pictures(pairs, types, model))

    def loss(generator: torch.Generator) -> Tensor:
        crops = dataset.draw(config.batch, generator)
        timesteps = on_device(draw_timesteps(config.batch, schedule.steps, generator), base.device)
        batch = dataset.chosen(on_device(crops, base.device))
        noise = on_device(torch.randn(batch.latents.shape, generator=generator), base.device)
        with _precision(model):
            text = words.prompt.embed(model.text_encoder, words.embeddings(batch.types))
            predicted = base.unet(schedule.add_noise(batch.latents, noise, timesteps), timesteps, text).sample
        return F.mse_loss(predicted.float(), schedule.target(batch.latents, noise, timesteps))

    parameters = dict(words.embeddings.named_parameters())
    groups = [(list(parameters.values()), config.embedding_lr)]
    run = TrainingRun(config, parameters, groups, loss, words.embeddings.train)
    workspace.mkdir(parents=True, exist_ok=True)
    run.resume(workspace)
    yield from optimise(run, words, workspace, None, keep_last=True)
    run.finish()


def _precision(model: AnomalyDiffusionModel) -> AbstractContextManager[object]:
    bf16 = model.config.precision == "bf16"
    return torch.autocast(model.device.type, torch.bfloat16) if bf16 else nullcontext()


@dataclass(frozen=True, slots=True)
class MaskGenerator:
    """Draws masks from learned words.

    Attributes:
        unet, vae: the base's, prepared for sampling, without the LoRA.
    """

    model: AnomalyDiffusionModel
    words: MaskWords
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    scheduler: str

    @torch.no_grad()
    def draw(self, kind: int, seed: int) -> MaskArray:
        """Draw one mask `(r, r)` bool of a defect type; it may be empty."""
        base, side = self.model.base, self.model.config.resolution // self.model.base.factor
        types = torch.tensor([kind], device=base.device)
        text = torch.cat(
            [self.words.prompt.embed(self.model.text_encoder, self.words.embeddings(types)), self.model.empty_text()]
        ).to(self.unet.dtype)
        scheduler = make_scheduler(self.scheduler, base.scheduler)
        scheduler.set_timesteps(STEPS, device=base.device)
        latents = draw_noise(seed, (1, base.latent_channels, side, side)).to(base.device) * scheduler.init_noise_sigma
        for timestep in scheduler.timesteps:
            both = scheduler.scale_model_input(latents, timestep).repeat(2, 1, 1, 1).to(self.unet.dtype)

            def denoise(rows: Tensor, both: Tensor = both, step: Tensor = timestep) -> Tensor:
                output: Tensor = self.unet(both[rows], step.long().expand(len(rows)), text[rows]).sample
                return output.float()

            drawn, empty = fixed_batches(denoise, torch.arange(2)).chunk(2)
            latents = scheduler.step(empty + GUIDANCE * (drawn - empty), timestep, latents).prev_sample
        brightness = (decode(self.vae, latents)[0].mean(0) + 1) / 2
        found: MaskArray = (brightness > THRESHOLD).cpu().numpy()
        return found
