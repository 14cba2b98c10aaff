"""Settings of few-shot training, each with its source; a base's card may recommend others than the paper's."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from model.data.crops import ViewKind
from model.diffusion.base import Base
from model.diffusion.prompts import PromptStyle
from service.core.errors import UsageError


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """How to train one adapter. Defaults are DualAnoDiff's (paper, or released code where the paper is silent).

    Attributes:
        steps: optimiser steps (5 000), at most.
        early_stop: ours, not the paper's, which trains to the last step. With five pairs or more, and steps enough to
            stop before the last, learn from all but one, stop when that one is no longer predicted better, and keep the
            weights that predicted it best, see `model.training.early_stopping`.
        batch: pairs per step (4; the authors use 2 with BCM).
        accumulate: batches whose gradients are added up before a step.
        rank: rank of both branches' LoRA (32).
        text_rank: rank of the text encoder's LoRA; 0 leaves the text encoder as it is.
        lr: learning rate of the LoRAs (2e-5, constant).
        interaction_lr: learning rate of SAIM and BCM (2e-5).
        lora_targets: "attention" is the paper's q, k, v, out; "all" adds feed-forward, convolutions and time embedding.
        warmup: steps of linear warm-up of the learning rates.
        clip_norm: gradients are clipped to this norm.
        resolution: side of the square the model sees, pixels; 0 takes the base's.
        view: see `model.data.crops`.
        views: augmented views encoded per pair, once, before training.
        flip_horizontal, flip_vertical: mirror views with probability 0.5; off for products that have a handedness.
        bcm: train the background compensation module.
        prompts: "rare" tokens or the "names" of object and defect.
        defect_weight: see `model.dualanodiff.loss.pair_loss`.
        composites: ours. With good parts given, so many pictures of the pairs' defects, changed at random and laid on
            good parts, are learned from beside the real ones, see `model.dualanodiff.composites`; 0 for none.
        real_share, prior_share: with composites, the share of every batch that are views of the real pairs, and of good
            parts without a defect; the rest are composites.
        reference_init: start SAIM anew, its output not zero-initialised (the released code's behaviour).
        precision: "fp32", or "bf16" autocast with fp32 trainable weights. The authors train in fp32; on GPUs bf16 is
            what is taken where neither user nor base chose.
        gradient_checkpointing: less memory for more time.
        mask_steps: steps of the mask network's adaptation to the user's pairs; 0 for none.
        checkpoint_every: steps between checkpoints.
        seed: of every draw.
    """

    steps: int = 5000
    early_stop: bool = True
    batch: int = 4
    accumulate: int = 1
    rank: int = 32
    text_rank: int = 32
    lr: float = 2e-5
    interaction_lr: float = 2e-5
    lora_targets: Literal["attention", "all"] = "attention"
    warmup: int = 0
    clip_norm: float = 1.0
    resolution: int = 0
    view: ViewKind = "whole"
    views: int = 16
    flip_horizontal: bool = True
    flip_vertical: bool = True
    bcm: bool = False
    prompts: PromptStyle = "rare"
    defect_weight: float = 0.0
    composites: int = 0
    real_share: float = 0.5
    prior_share: float = 0.125
    reference_init: bool = False
    precision: Literal["fp32", "bf16"] = "fp32"
    gradient_checkpointing: bool = False
    mask_steps: int = 150
    checkpoint_every: int = 100
    seed: int = 0

    @property
    def flips(self) -> tuple[bool, bool]:
        """Whether pictures may be mirrored, left to right and top to bottom."""
        return self.flip_horizontal, self.flip_vertical

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the card."""
        return asdict(self)


def resolve_config(base: Base, chosen: dict[str, Any]) -> TrainingConfig:
    """The paper's settings (on GPUs in bf16), over them the base's recommended ones, over them what the user chose.

    Args:
        chosen: field name → value; None means not chosen.

    Raises:
        UsageError: naming every value that cannot be.
    """
    known = {field.name for field in fields(TrainingConfig)}
    recommended = {key: value for key, value in base.few_shot.items() if key in known}
    given = {key: value for key, value in chosen.items() if value is not None}
    if unknown := sorted(set(given) - known):
        raise UsageError(f"unknown training options {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    suited: dict[str, Any] = {"precision": "bf16"} if base.device.type == "cuda" else {}
    config = replace(TrainingConfig(), **{**suited, **recommended, **given})
    config = replace(config, resolution=config.resolution or base.resolution)
    if problems := _problems(base, config):
        raise UsageError(problems, "The training options cannot be used")
    return config


def _problems(base: Base, config: TrainingConfig) -> list[str]:
    problems = []
    cell = base.factor * 2 ** (len(base.unet.config.block_out_channels) - 1)
    if config.resolution < cell or config.resolution % cell:
        problems.append(f"resolution is {config.resolution}; this base needs a positive multiple of {cell} pixels")
    least = {
        "steps": 1,
        "batch": 1,
        "accumulate": 1,
        "rank": 1,
        "text_rank": 0,
        "views": 1,
        "mask_steps": 0,
        "warmup": 0,
        "checkpoint_every": 1,
        "seed": 0,
        "defect_weight": 0,
        "composites": 0,
    }
    values = config.as_dict()
    problems += [
        f"{name} is {values[name]}; it must be at least {lowest}"
        for name, lowest in least.items()
        if not values[name] >= lowest
    ]
    rates = ("lr", "interaction_lr", "clip_norm")
    problems += [f"{name} is {values[name]}; it must be above 0" for name in rates if not values[name] > 0]
    shares = ("real_share", "prior_share")
    problems += [f"{name} is {values[name]}; it must be from 0 to 1" for name in shares if not 0 <= values[name] <= 1]
    if config.real_share + config.prior_share > 1:
        problems.append(
            f"real_share is {config.real_share} and prior_share {config.prior_share}; together they must be at most 1"
        )
    choices = {
        "lora_targets": ("attention", "all"),
        "view": ("whole", "window"),
        "prompts": ("rare", "names"),
        "precision": ("fp32", "bf16"),
    }
    problems += [
        f"{name} is {values[name]!r}; it must be one of {', '.join(allowed)}"
        for name, allowed in choices.items()
        if values[name] not in allowed
    ]
    return problems
