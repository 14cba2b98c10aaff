"""Teaches the embedded base to fill masks with defects, on procedural views: the start of AnomalyDiffusion's adapters.

It is what few-shot training does (`model.anomalydiffusion.loss`), on all views and all kinds of defects at once. The
base stays as it is; a LoRA, the sight of masks, the encoder of masks and four words are learned. A type is named by its
own word; a share of the views are of the nameless type "anomaly", as the user's may be.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from torch import Tensor, nn

from model.anomalydiffusion.inpainting import shown_channels
from model.anomalydiffusion.loss import masked_loss
from model.anomalydiffusion.model import FILL_ADAPTER, AnomalyDiffusionModel, build_model
from model.anomalydiffusion.start import WORDS, first_words, save_start, take_start
from model.anomalydiffusion.words import ANOMALY_WORDS, FIRST_WORD
from model.diffusion.base import Base
from model.pretrain.data import load_views
from model.pretrain.loop import LoopConfig, draws_of, run_loop
from model.pretrain.pairs import PairsConfig, shown_in, stratified
from model.pretrain.precision import computing_in
from model.pretrain.procedural.captions import Shown
from model.runtime.matrix_units import faster_precision
from model.runtime.progress import Progress
from service.core.atomic_write import atomic_file
from service.core.options.anomalydiffusion import AnomalyTrainingConfig

STAGE = "filling"


@dataclass(frozen=True, slots=True)
class FillingConfig:
    """Size of the LoRA and of its batches.

    Attributes:
        rank: of the LoRA; few-shot training must use the same.
        batch: views per step.
        nameless_share: share of the views whose type is not named.
    """

    rank: int = 32
    batch: int = 32
    nameless_share: float = 0.3
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Filled:
    """A shard's views of defects.

    Attributes:
        latents: `(N, C_lat, h, w)` bfloat16.
        masks: `(N, P, P)` bool.
        names: names of the defect types.
    """

    latents: Tensor
    masks: Tensor
    names: Sequence[str]


def filled_views(encoded: Sequence[Path], views: Path, pairs: PairsConfig, device: torch.device) -> list[Filled]:
    """Load what is filled: the encoded views that show a defect, with their masks.

    Args:
        encoded: the shards of encoded pairs, in the order of encoding.
        views: folder of the shards of views, of the same names.
        pairs: what the views were encoded with.
    """
    filled = []
    for number, path in enumerate(encoded):
        shard = load_views(views / path.name)
        shows = torch.tensor([kind is Shown.DEFECT for kind in shown_in(number, len(shard), pairs)])
        chosen = (shows & shard.masks.flatten(1).any(1)).nonzero()[:, 0]
        latents = load_file(path)["latents"][0, chosen].to(device)
        names = [shard.names[each][1] for each in chosen.tolist()]
        filled.append(Filled(latents, shard.masks[chosen].to(device), names))
    return filled


def learned_parts(model: AnomalyDiffusionModel, words: nn.Embedding) -> nn.ModuleDict:
    """Return all that is learned, apart from the frozen base, so that checkpoints are small.

    Args:
        words: of `ANOMALY_WORDS` vectors, what all types have in common.
    """
    layers = [module for module in model.unet.modules() if isinstance(module, LoraLayer)]
    matrices = [part[FILL_ADAPTER] for layer in layers for part in (layer.lora_A, layer.lora_B)]
    others = {name: module for name, module in model.learned().items() if name != "embeddings"}
    return nn.ModuleDict({"lora": nn.ModuleList(matrices), "words": words, **others})


def train_filling(
    base: Base, views: Sequence[Filled], folder: Path, target: Path, config: FillingConfig, loop: LoopConfig
) -> Iterator[Progress]:
    """Learn to fill masks, resumably, and write the start of adapters to `target`.

    Args:
        base: the finished base; a start that it has is gone on from.
        folder: folder of the checkpoints.
    """
    options = AnomalyTrainingConfig(
        fill_rank=config.rank,
        lora_targets="all",
        inpainting=True,
        resolution=base.resolution,
        seed=config.seed,
    )
    model = build_model(base, options, [FIRST_WORD])
    words = nn.Embedding(ANOMALY_WORDS, model.embeddings.vectors.shape[-1], device=model.device)
    nn.init.zeros_(words.weight)
    if base.filling is not None and take_start(model):
        words.load_state_dict({"weight": base.filling[WORDS]})
    parts = learned_parts(model, words)
    model.networks().train()
    precision = faster_precision(model.device)

    def loss_of(step: int) -> Tensor:
        generator, rng = draws_of(config.seed, step, model.device)
        shard = views[int(rng.integers(len(views)))]
        chosen = torch.randint(len(shard.names), (config.batch,), generator=generator, device=model.device)
        latents, masks = shard.latents[chosen].float(), shard.masks[chosen][:, None].float()
        nameless = rng.random(config.batch) < config.nameless_share
        names = [
            FIRST_WORD if hidden else shard.names[each] for each, hidden in zip(chosen.tolist(), nameless, strict=True)
        ]
        timesteps = stratified(config.batch, model.schedule.steps, generator)
        noise = torch.randn(latents.shape, generator=generator, device=model.device)
        noisy = model.schedule.add_noise(latents, noise, timesteps)
        with computing_in(precision, model.device):
            vectors = torch.stack([first_words(model, words.weight, name) for name in names])
            text = model.prompt.embed(model.text_encoder, torch.cat([vectors, parts["spatial"](masks)], dim=1))
            seen = torch.cat([noisy, shown_channels(latents, masks)], dim=1)
            predicted = model.unet(seen, timesteps, text).sample
        target = model.schedule.target(latents, noise, timesteps)
        return masked_loss(predicted, target, F.max_pool2d(masks, base.factor))

    yield from run_loop({STAGE: parts}, loss_of, folder, loop, STAGE)
    with atomic_file(target) as aside:
        save_start(aside, model, words.weight)
