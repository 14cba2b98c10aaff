"""Trains the embedded base's U-Net from scratch: both branches and SAIM together, on procedural pairs.

Few-shot training alone cannot teach the branches to agree on where a defect is; exact procedural masks can. One U-Net
serves both branches, distinguished by their prompts ("a scratched plate" / "scratch"), and SAIM learns to carry the
defect from one to the other. A share of the captions has rare tokens in place of names, so that these mean "an object"
and "a defect" before any user's data are seen. Some pairs show a faultless object and an empty part, so that a prompt
without a defect has a meaning; some show the mask as an image, and the part. Every few steps the branches run without
SAIM, so that the U-Net also generates single images (AnomalyDiffusion, BCM's pass over backgrounds).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTextModel, PreTrainedTokenizerFast

from model.diffusion.noise_schedule import NoiseSchedule
from model.diffusion.prompts import tokenize
from model.dualanodiff.loss import pair_loss
from model.dualanodiff.unet import ForwardOptions, TwoBranchUNet
from model.kernels.group_norm import use_channels_last
from model.pretrain.compiling import Objective, faster
from model.pretrain.data import Views, as_pixels, load_views
from model.pretrain.loop import LoopConfig, draws_of, run_loop
from model.pretrain.precision import computing_in
from model.pretrain.procedural.captions import Shown, caption_pair, rare_captions
from model.runtime.matrix_units import faster_precision
from model.runtime.progress import Progress
from model.types import GREY
from service.core.atomic_write import atomic_file

ENCODE_BATCH = 128

APART_EVERY = 8
"""One step in this many runs the branches without SAIM."""


@dataclass(frozen=True, slots=True)
class PairsConfig:
    """Size of the U-Net and of its batches.

    Attributes:
        widths: channels per level; every level has self- and cross-attention, and so SAIM.
        heads: attention heads.
        batch: pairs per step.
        rare_share: share of the pairs whose captions use rare tokens.
        drop_share: share of the pairs trained without captions, for classifier-free guidance.
        mask_share: share of the views whose image is the mask.
        good_share: share of the views whose image has no defect, and whose part is empty.
        compile_seconds: limit for compiling the objective; 0 turns compilation off.
        encode_every: steps between two batches of views to encode, until all are encoded.
        defect_weight: see `pair_loss`.
    """

    widths: tuple[int, ...] = (64, 128, 192)
    heads: int = 4
    batch: int = 32
    rare_share: float = 0.3
    drop_share: float = 0.1
    mask_share: float = 0.06
    good_share: float = 0.08
    compile_seconds: float = 0.0
    encode_every: int = 12
    defect_weight: float = 0.25
    seed: int = 0


@dataclass(frozen=True, slots=True)
class EncodedPairs:
    """Latents of a shard's pairs.

    Attributes:
        latents: `(2, N, C_lat, h, w)` bfloat16, branch axis first.
        masks: `(N, 1, h, w)` float16 in [0, 1]: the defect; empty without one.
        tokens: `(2, N, L)` int16 captions of both branches.
        rare_tokens: the same with the rare tokens in place of the names.
    """

    latents: Tensor
    masks: Tensor
    tokens: Tensor
    rare_tokens: Tensor

    def __len__(self) -> int:
        return len(self.masks)


def build_unet(config: PairsConfig, latent_channels: int, latent_size: int, text_width: int) -> UNet2DConditionModel:
    """Make a new U-Net with weights drawn from `config.seed`."""
    torch.manual_seed(config.seed)
    levels = len(config.widths)
    return UNet2DConditionModel(
        sample_size=latent_size,
        in_channels=latent_channels,
        out_channels=latent_channels,
        block_out_channels=config.widths,
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * levels,
        up_block_types=("CrossAttnUpBlock2D",) * levels,
        norm_num_groups=16,
        cross_attention_dim=text_width,
        attention_head_dim=config.heads,
    )


class PairEncoder:
    """Encodes shards of views step by step, stores complete ones on disk, and draws batches from them.

    Args:
        vae: the finished autoencoder, on the training device.
        tokenizer: tokenizer of the captions.
        shards: folder of the shards of views, which may be growing.
        folder: folder for encoded shards.
        config: shares of the kinds of pairs, and the seed.
    """

    def __init__(
        self,
        vae: AutoencoderKL,
        tokenizer: PreTrainedTokenizerFast,
        shards: Path,
        folder: Path,
        config: PairsConfig,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._vae, self._tokenizer, self._config = vae, tokenizer, config
        self._shards, self._folder = shards, folder
        self._begun: tuple[Path, Views, list[Shown], list[Tensor]] | None = None
        self._precision = faster_precision(vae.device)
        self._known = {path.name for path in folder.glob("*.safetensors")}
        self.encoded = [
            EncodedPairs(**load_file(folder / name, device=str(vae.device))) for name in sorted(self._known)
        ]

    def encode_some(self) -> bool:
        """Encode the next batch of views; a shard's pairs can be drawn once its last batch is encoded.

        Returns:
            Whether anything was left to encode.
        """
        if self._begun is None:
            waiting = sorted(path for path in self._shards.glob("*.safetensors") if path.name not in self._known)
            if not waiting:
                return False
            views = load_views(waiting[0])
            self._begun = waiting[0], views, shown_in(len(self.encoded), len(views), self._config), []
        path, views, shown, latents = self._begun
        begin = len(latents) * ENCODE_BATCH
        latents.append(self._latents(views, shown, torch.arange(begin, min(begin + ENCODE_BATCH, len(views)))))
        if len(latents) * ENCODE_BATCH >= len(views):
            pairs = self._pairs(views, shown, torch.cat(latents, dim=1))
            with atomic_file(self._folder / path.name) as aside:
                save_file({name: getattr(pairs, name).contiguous() for name in pairs.__slots__}, aside)
            self.encoded.append(pairs)
            self._known.add(path.name)
            self._begun = None
        return True

    @torch.no_grad()
    def _latents(self, views: Views, shown: list[Shown], chosen: Tensor) -> Tensor:
        kinds = [shown[index] for index in chosen.tolist()]
        masked = _flags(kinds, Shown.MASK)
        good = _flags(kinds, Shown.GOOD)
        images = torch.where(masked, views.mask_pictures(chosen), views.images[chosen])
        images = torch.where(good, views.normals[chosen], images)
        parts = torch.where(good, GREY, views.parts(chosen))
        device = self._vae.device
        with computing_in(self._precision, device):
            both = [self._vae.encode(as_pixels(group.to(device))).latent_dist.mean for group in (images, parts)]
        return torch.stack(both).mul(self._vae.config.scaling_factor).to(torch.bfloat16)

    def _pairs(self, views: Views, shown: list[Shown], latents: Tensor) -> EncodedPairs:
        rng = np.random.default_rng([self._config.seed, len(self.encoded), 1])
        captions = [caption_pair(rng, *names, kind) for names, kind in zip(views.names, shown, strict=True)]
        rare = [rare_captions(kind) for kind in shown]
        factor = views.masks.shape[-1] // latents.shape[-1]
        masks = F.avg_pool2d(views.masks[:, None].float(), factor) * ~_flags(shown, Shown.GOOD)
        device = latents.device
        return EncodedPairs(
            latents,
            masks.half().to(device),
            *(
                torch.stack([tokenize(self._tokenizer, [pair[branch] for pair in pairs]) for branch in (0, 1)])
                .to(torch.int16)
                .to(device)
                for pairs in (captions, rare)
            ),
        )


def shown_in(shard: int, count: int, config: PairsConfig) -> list[Shown]:
    """Draw what each image of a shard shows.

    Args:
        shard: its number, in the order of encoding.
        count: number of its views.
    """
    draws = np.random.default_rng([config.seed, shard]).random(count)
    return [
        Shown.MASK if draw < config.mask_share else Shown.GOOD if draw > 1 - config.good_share else Shown.DEFECT
        for draw in draws
    ]


def _flags(shown: list[Shown], kind: Shown) -> Tensor:
    """Return `(N, 1, 1, 1)` bool: which images show that kind."""
    return torch.tensor([each is kind for each in shown]).view(-1, 1, 1, 1)


def train_pairs(
    denoiser: TwoBranchUNet,
    text_encoder: CLIPTextModel,
    tokenizer: PreTrainedTokenizerFast,
    encoder: PairEncoder,
    schedule: NoiseSchedule,
    folder: Path,
    config: PairsConfig,
    loop: LoopConfig,
) -> Iterator[Progress]:
    """Train U-Net, SAIM and text encoder together in place, resumably.

    Args:
        encoder: has at least one encoded shard; encodes more during training.
        schedule: noise schedule on the device.
    """
    device = next(denoiser.parameters()).device
    precision = faster_precision(device)
    use_channels_last(denoiser)
    denoiser.train()
    text_encoder.train()
    empty = tokenize(tokenizer, [""])[0].to(device)

    def draw(step: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, bool]:
        generator, rng = draws_of(config.seed, step, device)
        pairs = encoder.encoded[int(rng.integers(len(encoder.encoded)))]
        chosen = torch.randint(len(pairs), (config.batch,), generator=generator, device=device)
        latents, masks = pairs.latents[:, chosen].float(), pairs.masks[chosen].float()
        kind = torch.rand(config.batch, generator=generator, device=device)[None, :, None]
        tokens = torch.where(kind < config.rare_share, pairs.rare_tokens[:, chosen], pairs.tokens[:, chosen]).long()
        tokens = torch.where(kind > 1 - config.drop_share, empty, tokens)
        timesteps = stratified(config.batch, schedule.steps, generator)
        noise = torch.randn(latents.shape, generator=generator, device=device)
        return latents, masks, tokens, timesteps, noise, step % APART_EVERY != 0

    objective = pair_objective(denoiser, text_encoder, schedule, config, precision)
    modules = {"denoiser": denoiser, "text_encoder": text_encoder}
    # The few steps without SAIM would need a separate compilation.
    together, compiled = faster(objective, draw(1), config.compile_seconds)
    for module in modules.values():
        module.zero_grad()

    def loss_of(step: int) -> Tensor:
        if step % config.encode_every == 0:
            encoder.encode_some()
        inputs = draw(step)
        return together(*inputs) if inputs[-1] else objective(*inputs)

    for progress in run_loop(modules, loss_of, folder, loop, "pairs"):
        yield replace(progress, note=", ".join(note for note in (progress.note, compiled) if note))
    denoiser.eval()
    text_encoder.eval()


def pair_objective(
    denoiser: TwoBranchUNet,
    text_encoder: CLIPTextModel,
    schedule: NoiseSchedule,
    config: PairsConfig,
    precision: torch.dtype,
) -> Objective:
    """Make the objective: the loss as a function of latents, masks, tokens, timesteps, noise, and the use of SAIM."""
    device = next(denoiser.parameters()).device

    def objective(
        latents: Tensor,
        masks: Tensor,
        tokens: Tensor,
        timesteps: Tensor,
        noise: Tensor,
        interact: bool,  # noqa: FBT001
    ) -> Tensor:
        with computing_in(precision, device):
            text = text_encoder(tokens.flatten(0, 1)).last_hidden_state.unflatten(0, (2, -1))
            noisy = schedule.add_noise(latents, noise, timesteps)
            prediction = denoiser(noisy, timesteps, text, ForwardOptions(interact=interact))
        return pair_loss(prediction, schedule.target(latents, noise, timesteps), masks, config.defect_weight)

    return objective


def stratified(count: int, steps: int, generator: torch.Generator) -> Tensor:
    """Draw `count` timesteps, one in each of `count` equal bands of [0, steps), in order; pairs are shuffled anyway."""
    device = generator.device
    draws = torch.rand(count, generator=generator, device=device)
    return ((torch.arange(count, device=device) + draws) / count * steps).long().clamp_max(steps - 1)
