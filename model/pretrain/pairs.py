"""The embedded base's U-Net: both branches and SAIM trained together, from nothing, on procedural pairs.

Few-shot training alone cannot teach the branches to agree on where a defect is; exact procedural masks can. One U-Net
serves both branches, told apart by their prompts ("a scratched plate" / "scratch"), and SAIM learns to carry the
defect from one to the other. In a share of the captions the names give way to the rare tokens, so these mean "an
object" and "a defect" before any user's data are seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, PreTrainedTokenizerFast

from model.checkpoint import step_generator
from model.denoiser import TwoBranchDenoiser
from model.objective import NoiseSchedule, draw_timesteps, pair_loss
from model.pretrain.data import ProceduralSet, to_pixels
from model.pretrain.group_norm import use_channels_last
from model.pretrain.loop import LoopConfig, run_loop
from model.progress import Meter, Progress
from model.text import RARE_DEFECT, RARE_OBJECT, tokenize
from model.types import ImageArray, MaskArray, anomaly_part


@dataclass(frozen=True, slots=True)
class PairsConfig:
    """Size of the U-Net and of its batches.

    Attributes:
        widths: channels per level; every level has self- and cross-attention, and so SAIM.
        heads: attention heads.
        batch: pairs per step.
        rare_share: share of the pairs whose captions use the rare tokens.
        drop_share: share of the pairs trained without caption, for classifier-free guidance.
        defect_weight: see `pair_loss`.
    """

    widths: tuple[int, ...] = (64, 128, 192)
    heads: int = 4
    batch: int = 16
    rare_share: float = 0.3
    drop_share: float = 0.1
    defect_weight: float = 0.25
    seed: int = 0


@dataclass(frozen=True, slots=True)
class EncodedPairs:
    """Latents of rendered pairs.

    Attributes:
        latents: `(2, N, C_lat, h, w)` bfloat16, branch axis first.
        masks: `(N, 1, h, w)` float16 in [0, 1].
        tokens: `(2, N, L)` int64 captions of both branches.
    """

    latents: Tensor
    masks: Tensor
    tokens: Tensor


def build_unet(config: PairsConfig, latent_channels: int, latent_size: int, text_width: int) -> UNet2DConditionModel:
    """A new U-Net with weights drawn from `config.seed`."""
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


@torch.no_grad()
def encode_pairs(
    vae: AutoencoderKL, tokenizer: PreTrainedTokenizerFast, samples: ProceduralSet, pixels: int
) -> Iterator[Progress | EncodedPairs]:
    """Encode every sample twice, whole (shrunk to `pixels`) and as a window around its defect at native scale.

    Yields progress, and last the `EncodedPairs`.
    """
    device = next(vae.parameters()).device
    meter = Meter("encode", len(samples), "samples")
    encoded: list[Tensor] = []
    cells: list[Tensor] = []
    for begin in range(0, len(samples), 64):
        indices = range(begin, min(begin + 64, len(samples)))
        images, masks = [], []
        for index in indices:
            for view in (_shrunk, _window):
                image, mask = view(samples.images[index], samples.masks[index], pixels, index)
                images.append(image)
                masks.append(mask)
        parts = [anomaly_part(image, mask) for image, mask in zip(images, masks, strict=True)]
        with torch.autocast(device.type, torch.bfloat16):
            both = [vae.encode(to_pixels(group).to(device)).latent_dist.mean for group in (images, parts)]
        encoded.append(torch.stack(both).mul(vae.config.scaling_factor).to("cpu", torch.bfloat16))
        factor = pixels // both[0].shape[-1]
        cells.append(torch.nn.functional.avg_pool2d(torch.from_numpy(np.stack(masks)).float()[:, None], factor).half())
        yield meter.report(begin + len(indices))
    captions = [caption for caption in samples.captions for _ in range(2)]
    part_captions = [caption for caption in samples.part_captions for _ in range(2)]
    tokens = torch.stack([tokenize(tokenizer, captions), tokenize(tokenizer, part_captions)])
    yield EncodedPairs(torch.cat(encoded, dim=1), torch.cat(cells), tokens)


def train_pairs(
    denoiser: TwoBranchDenoiser,
    text_encoder: CLIPTextModel,
    tokenizer: PreTrainedTokenizerFast,
    encoded: EncodedPairs,
    schedule: NoiseSchedule,
    folder: Path,
    config: PairsConfig,
    loop: LoopConfig,
    *,
    compiled: bool = False,
) -> Iterator[Progress]:
    """Train U-Net, SAIM and text encoder together in place, resumably."""
    device = next(denoiser.parameters()).device
    if compiled:
        network = torch.compile(denoiser)
    else:
        use_channels_last(denoiser)
        network = denoiser
    count = encoded.latents.shape[1]
    rare = tokenize(tokenizer, [f"a {RARE_OBJECT} with {RARE_DEFECT}", RARE_DEFECT])[:, None]
    empty = tokenize(tokenizer, [""])[None]

    def loss_of(step: int) -> Tensor:
        generator = step_generator(config.seed, step)
        chosen = torch.randint(count, (config.batch,), generator=generator)
        latents = encoded.latents[:, chosen].float().to(device)
        masks = encoded.masks[chosen].float().to(device)
        kind = torch.rand(config.batch, generator=generator)[None, :, None]
        tokens = torch.where(kind < config.rare_share, rare, encoded.tokens[:, chosen])
        tokens = torch.where(kind > 1 - config.drop_share, empty, tokens).to(device)
        timesteps = draw_timesteps(config.batch, schedule.steps, generator).to(device)
        noise = torch.randn(latents.shape, generator=generator).to(device)
        with torch.autocast(device.type, torch.bfloat16):
            text = text_encoder(tokens.flatten(0, 1)).last_hidden_state.unflatten(0, (2, -1))
            prediction = network(schedule.add_noise(latents, noise, timesteps), timesteps, text)
        return pair_loss(prediction, schedule.target(latents, noise, timesteps), masks, config.defect_weight)

    denoiser.train()
    text_encoder.train()
    modules = {"denoiser": denoiser, "text_encoder": text_encoder}
    yield from run_loop(modules, loss_of, folder, loop, "pairs")
    denoiser.eval()
    text_encoder.eval()


def _shrunk(image: ImageArray, mask: MaskArray, pixels: int, index: int) -> tuple[ImageArray, MaskArray]:
    """The whole picture as means over k×k blocks; the mask where at least a third of a block is defect."""
    k = image.shape[0] // pixels
    blocks = image.reshape(pixels, k, pixels, k, 3).mean((1, 3)).round().astype(np.uint8)
    small: MaskArray = np.asarray(mask.reshape(pixels, k, pixels, k).mean((1, 3)) >= 1 / 3)
    touched: MaskArray = mask.reshape(pixels, k, pixels, k).any((1, 3))
    return blocks, small if small.any() else touched


def _window(image: ImageArray, mask: MaskArray, pixels: int, index: int) -> tuple[ImageArray, MaskArray]:
    """A square of `pixels` that holds a random point of the defect at a random place."""
    draw = np.random.default_rng(index)
    ys, xs = np.nonzero(mask)
    pick = draw.integers(len(ys))
    size = image.shape[0]
    left = int(np.clip(xs[pick] - draw.integers(pixels), 0, size - pixels))
    top = int(np.clip(ys[pick] - draw.integers(pixels), 0, size - pixels))
    place = np.s_[top : top + pixels, left : left + pixels]
    return image[place], mask[place]
