"""The embedded base's U-Net: both branches and SAIM trained together, from nothing, on procedural pairs.

Few-shot training alone cannot teach the branches to agree on where a defect is; exact procedural masks can. One U-Net
serves both branches, told apart by their prompts ("a scratched plate" / "scratch"), and SAIM learns to carry the
defect from one to the other. In a share of the captions the names give way to the rare tokens, so these mean "an
object" and "a defect" before any user's data are seen.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, PreTrainedTokenizerFast

from model.checkpoint import step_generator
from model.denoiser import TwoBranchDenoiser
from model.group_norm import use_channels_last
from model.objective import NoiseSchedule, draw_timesteps, pair_loss
from model.pixels import to_pixels
from model.pretrain.data import ProceduralSet
from model.pretrain.loop import LoopConfig, run_loop
from model.progress import Meter, Progress
from model.text import RARE_DEFECT, RARE_OBJECT, tokenize

ENCODE_BATCH = 128


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
    vae: AutoencoderKL, tokenizer: PreTrainedTokenizerFast, views: ProceduralSet
) -> Generator[Progress, None, EncodedPairs]:
    """Encode images and anomaly parts; yields progress, returns the latents."""
    device = next(vae.parameters()).device
    meter = Meter("encode", len(views), "views")
    encoded: list[Tensor] = []
    for begin in range(0, len(views), ENCODE_BATCH):
        chunk = range(begin, min(begin + ENCODE_BATCH, len(views)))
        groups = (views.images[chunk.start : chunk.stop], [views.part(index) for index in chunk])
        with torch.autocast(device.type, torch.bfloat16):
            both = [vae.encode(to_pixels(group).to(device)).latent_dist.mean for group in groups]
        encoded.append(torch.stack(both).mul(vae.config.scaling_factor).to("cpu", torch.bfloat16))
        yield meter.report(chunk.stop)
    factor = views.images.shape[1] // encoded[0].shape[-1]
    masks = [F.avg_pool2d(torch.from_numpy(mask).float()[None, None], factor).half() for mask in views.masks]
    tokens = torch.stack([tokenize(tokenizer, views.captions), tokenize(tokenizer, views.part_captions)])
    return EncodedPairs(torch.cat(encoded, dim=1), torch.cat(masks), tokens)


def train_pairs(
    denoiser: TwoBranchDenoiser,
    text_encoder: CLIPTextModel,
    tokenizer: PreTrainedTokenizerFast,
    encoded: EncodedPairs,
    schedule: NoiseSchedule,
    folder: Path,
    config: PairsConfig,
    loop: LoopConfig,
) -> Iterator[Progress]:
    """Train U-Net, SAIM and text encoder together in place, resumably."""
    device = next(denoiser.parameters()).device
    use_channels_last(denoiser)
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
            prediction = denoiser(schedule.add_noise(latents, noise, timesteps), timesteps, text)
        return pair_loss(prediction, schedule.target(latents, noise, timesteps), masks, config.defect_weight)

    denoiser.train()
    text_encoder.train()
    modules = {"denoiser": denoiser, "text_encoder": text_encoder}
    yield from run_loop(modules, loss_of, folder, loop, "pairs")
    denoiser.eval()
    text_encoder.eval()
