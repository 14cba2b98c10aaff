"""Sizes of the embedded base: what two CPU cores make in an evening, and what one GPU makes in half an hour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from model.pretrain.autoencoder import AutoencoderConfig
from model.pretrain.loop import LoopConfig
from model.pretrain.pairs import PairsConfig


@dataclass(frozen=True, slots=True)
class Preset:
    """All sizes of one pretraining.

    Attributes:
        samples: rendered procedural samples.
        render_size: their side, pixels.
        pixels: side of the square images of the base's U-Net.
        text_width, text_layers: of the text encoder.
        masks: loop of each mask network.
        few_shot, sampling: settings recommended to users of the base, for its card.
    """

    samples: int
    render_size: int
    pixels: int
    autoencoder: AutoencoderConfig
    autoencoder_loop: LoopConfig
    pairs: PairsConfig
    pairs_loop: LoopConfig
    masks: LoopConfig
    text_width: int
    text_layers: int
    few_shot: dict[str, Any]
    sampling: dict[str, Any]


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
    "defect_weight": 0.25,
    "precision": "bf16",
    "mask_steps": 80,
}
SAMPLING: dict[str, Any] = {"steps": 15, "guidance_scale": 1.5, "sketch_strength": 0.4, "precision": "bf16"}

PRESETS = {
    "cpu": Preset(
        samples=12_000,
        render_size=128,
        pixels=64,
        autoencoder=AutoencoderConfig(widths=(32, 64, 128), batch=8),
        autoencoder_loop=LoopConfig(
            steps=4700, lr=1e-3, warmup=100, decay_share=0.25, average_decay=0.998, checkpoint_every=400
        ),
        pairs=PairsConfig(widths=(64, 128, 192), batch=16),
        pairs_loop=LoopConfig(
            steps=3800, lr=6e-4, warmup=200, decay_share=0.4, average_decay=0.998, checkpoint_every=250
        ),
        masks=LoopConfig(steps=500, lr=2e-3, warmup=50, decay_share=0.6, average_decay=0.99, checkpoint_every=250),
        text_width=128,
        text_layers=2,
        few_shot=FEW_SHOT,
        sampling=SAMPLING,
    ),
    "gpu": Preset(
        samples=60_000,
        render_size=256,
        pixels=128,
        autoencoder=AutoencoderConfig(widths=(48, 96, 160), crop=128, batch=32),
        autoencoder_loop=LoopConfig(
            steps=12_000, lr=5e-4, warmup=500, decay_share=0.5, average_decay=0.999, checkpoint_every=2000
        ),
        pairs=PairsConfig(widths=(96, 192, 256), batch=256),
        pairs_loop=LoopConfig(
            steps=12_000, lr=4e-4, warmup=500, decay_share=0.3, average_decay=0.9995, checkpoint_every=1000
        ),
        masks=LoopConfig(steps=4000, lr=2e-3, warmup=100, decay_share=0.6, average_decay=0.99, checkpoint_every=1000),
        text_width=192,
        text_layers=3,
        few_shot=FEW_SHOT,
        sampling=SAMPLING,
    ),
}
