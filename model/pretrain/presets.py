"""Defines presets of the embedded base: for two CPU cores overnight, and for one GPU in nine minutes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

from model.pretrain.autoencoder import AutoencoderConfig
from model.pretrain.filling import FillingConfig
from model.pretrain.loop import LoopConfig
from model.pretrain.pairs import PairsConfig


@dataclass(frozen=True, slots=True)
class Preset:
    """All sizes of one pretraining.

    Attributes:
        minutes: default duration.
        shares: shares of the minutes for the autoencoder, the pairs, each of the two mask networks, and filling masks;
            the rest is for starting, rendering the first scenes, encoding, and measuring.
        scenes: most procedural scenes to render; each gives two views.
        render_size: side of a scene, pixels.
        shard: scenes per file.
        first_shards: files that must exist before the autoencoder, or the pairs, start.
        pixels: side of the square images of the base's U-Net.
        text_width, text_layers: width and layers of the text encoder.
        mask_batch: views per step of a mask network.
        masks: training loop of each mask network.
        filling, filling_loop: of the start of AnomalyDiffusion's adapters.
        few_shot, sampling: settings recommended to users of the base, for its card.
    """

    minutes: float
    shares: tuple[float, float, float, float]
    scenes: int
    render_size: int
    shard: int
    first_shards: int
    pixels: int
    autoencoder: AutoencoderConfig
    autoencoder_loop: LoopConfig
    pairs: PairsConfig
    pairs_loop: LoopConfig
    mask_batch: int
    masks: LoopConfig
    filling: FillingConfig
    filling_loop: LoopConfig
    text_width: int
    text_layers: int
    few_shot: dict[str, Any]
    sampling: dict[str, Any]

    def lasting(self, minutes: float, *, started: bool = False) -> Self:
        """Set every loop's length by the clock; if a base is `started` from, mask networks get no time."""
        autoencoder, pairs, masks, filling = (60 * minutes * share for share in self.shares)
        if started:
            pairs += 2 * masks
        return replace(
            self,
            autoencoder_loop=replace(self.autoencoder_loop, seconds=autoencoder),
            pairs_loop=replace(self.pairs_loop, seconds=pairs),
            masks=replace(self.masks, seconds=masks),
            filling_loop=replace(self.filling_loop, seconds=filling),
        )


FEW_SHOT: dict[str, Any] = {
    "steps": 400,
    "early_stop": False,
    "batch": 6,
    "rank": 32,
    "text_rank": 4,
    "lr": 1e-3,
    "interaction_lr": 5e-4,
    "warmup": 20,
    "lora_targets": "all",
    "view": "window",
    "views": 24,
    "composite_views": 32,
    "defect_weight": 0.25,
    "precision": "bf16",
    "mask_steps": 0,
    "fill_rank": 32,
    "inpainting": True,
    "embedding_lr": 5e-3,
    "encoder_lr": 1e-3,
}
SAMPLING: dict[str, Any] = {
    "steps": 15,
    "guidance_scale": 1.5,
    "strength": 0.95,
    "part_guidance": 3.0,
    "refine_strength": 0.5,
    "faint_guidance": 2.0,
    "precision": "bf16",
}

PRESETS = {
    "cpu": Preset(
        minutes=600,
        shares=(0.12, 0.71, 0.03, 0.07),
        scenes=200_000,
        render_size=128,
        shard=500,
        first_shards=4,
        pixels=64,
        autoencoder=AutoencoderConfig(widths=(24, 48, 96), groups=8, batch=16),
        autoencoder_loop=LoopConfig(lr=1.2e-3, warmup=100, decay_share=0.4, average_decay=0.998),
        pairs=PairsConfig(widths=(64, 128, 192), batch=32),
        pairs_loop=LoopConfig(lr=8e-4, warmup=300, decay_share=0.25, average_decay=0.998),
        mask_batch=16,
        masks=LoopConfig(lr=2e-3, warmup=50, decay_share=0.6, average_decay=0.99),
        filling=FillingConfig(batch=32),
        filling_loop=LoopConfig(lr=1e-3, warmup=100, decay_share=0.4, average_decay=0.998),
        text_width=128,
        text_layers=2,
        few_shot=FEW_SHOT,
        sampling=SAMPLING,
    ),
    "gpu": Preset(
        minutes=9,
        shares=(0.14, 0.48, 0.04, 0.06),
        scenes=60_000,
        render_size=128,
        shard=500,
        first_shards=32,
        pixels=64,
        autoencoder=AutoencoderConfig(widths=(32, 64, 128), groups=8, batch=128),
        autoencoder_loop=LoopConfig(lr=1e-3, warmup=100, decay_share=0.5, average_decay=0.998),
        pairs=PairsConfig(widths=(96, 160, 256), batch=512, compile_seconds=60),
        pairs_loop=LoopConfig(lr=8e-4, warmup=200, decay_share=0.3, average_decay=0.999),
        mask_batch=64,
        masks=LoopConfig(lr=2e-3, warmup=50, decay_share=0.6, average_decay=0.99),
        filling=FillingConfig(batch=256),
        filling_loop=LoopConfig(lr=1e-3, warmup=50, decay_share=0.4, average_decay=0.99),
        text_width=192,
        text_layers=3,
        few_shot=FEW_SHOT,
        sampling=SAMPLING,
    ),
}
"""Learning rates depend on the batch: the pairs' rate is the largest that is stable with AdamW at 32 and more."""
