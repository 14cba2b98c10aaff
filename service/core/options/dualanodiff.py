"""DualAnoDiff's options of training and sampling, each with its source; a base's card may recommend others."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Self

from pydantic import FiniteFloat

from service.core.options.common import MaskMethod, PromptStyle, Share
from service.core.options.declaration import ServedUpTo
from service.core.options.learned import (
    WHOLE,
    Accumulate,
    Anywhere,
    CheckpointEvery,
    ClipNorm,
    EarlyStop,
    FlipHorizontal,
    FlipVertical,
    GradientCheckpointing,
    GuidanceScale,
    LoraRate,
    LoraTargets,
    MatchDetail,
    OnObject,
    RefineStrength,
    Region,
    Resolution,
    SamplingBatch,
    SamplingPrecision,
    SamplingSteps,
    Scheduler,
    SeedOption,
    Sizes,
    TrainingBatch,
    TrainingPrecision,
    TrainingSteps,
    View,
    Views,
    Warmup,
    described,
)
from service.core.options.presets import GUIDANCE, Preset


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """How to train one adapter. Defaults are DualAnoDiff's (paper, or released code where the paper is silent)."""

    preset: Annotated[
        Preset,
        described(
            "base trains as the base recommends, paper as published for Stable Diffusion 1.5. "
            "The paper's: 512 pixels, whole images, 5 000 steps of 4 pairs (2 with BCM), learning rate 2e-5, rank 32, "
            "no pair held out. Options that are given count before those of the preset."
        ),
    ] = "base"
    steps: TrainingSteps = 5000
    early_stop: EarlyStop = True
    batch: TrainingBatch = 4
    accumulate: Accumulate = 1
    rank: Annotated[int, described("Rank of both branches' LoRA.", ge=1), ServedUpTo(256)] = 32
    text_rank: Annotated[int, described("Rank of the text encoder's LoRA, 0 for none.", ge=0), ServedUpTo(256)] = 32
    lr: LoraRate = 2e-5
    interaction_lr: Annotated[FiniteFloat, described("Learning rate of SAIM and BCM.", gt=0)] = 2e-5
    lora_targets: LoraTargets = "attention"
    warmup: Warmup = 0
    clip_norm: ClipNorm = 1.0
    resolution: Resolution = 0
    view: View = "whole"
    views: Views = 16
    flip_horizontal: FlipHorizontal = True
    flip_vertical: FlipVertical = True
    saim: Annotated[
        bool,
        described(
            "Let the two branches exchange information after every attention, in training and sampling. "
            "Off is the paper's ablation: image and part are made independently of each other."
        ),
    ] = True
    bcm: Annotated[bool, described("Train the background compensation module.")] = False
    prompts: Annotated[PromptStyle, described("Prompts of rare tokens, or of the names of object and defect.")] = "rare"
    defect_weight: Annotated[FiniteFloat, described("Extra weight of the defect in the loss.", ge=0)] = 0.0
    composites: Annotated[
        int,
        described(
            "Defects laid on good parts to learn from, 0 for none; needs normals. "
            "The real defects are changed at random. Ours, not the paper's.",
            ge=0,
        ),
        ServedUpTo(10_000),
    ] = 0
    real_share: Annotated[Share, described("Real crops' share of a batch beside composites.")] = 0.5
    prior_share: Annotated[Share, described("Good parts' share of a batch beside composites.")] = 0.125
    reference_init: Annotated[
        bool, described("Begin with a random SAIM, as the authors' code does. Otherwise its output begins at zero.")
    ] = False
    precision: TrainingPrecision = "fp32"
    gradient_checkpointing: GradientCheckpointing = False
    mask_steps: Annotated[
        int, described("Steps of adapting the mask network, 0 for none.", ge=0), ServedUpTo(100_000)
    ] = 150
    checkpoint_every: CheckpointEvery = 100
    seed: SeedOption = 0

    @property
    def flips(self) -> tuple[bool, bool]:
        """Whether pictures may be mirrored, left to right and top to bottom."""
        return self.flip_horizontal, self.flip_vertical

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the card."""
        return asdict(self)

    def with_half_batch(self) -> Self:
        """Halve the pairs at once, rounded down, and double the batches per step."""
        return replace(self, batch=self.batch // 2, accumulate=2 * self.accumulate)


@dataclass(frozen=True, slots=True)
class SamplingConfig:
    """How pairs are sampled."""

    preset: Annotated[
        Preset,
        described(
            "base samples as the base recommends, paper as published for Stable Diffusion 1.5. "
            "The paper's: from noise, 100 steps of DDIM, guidance 2.5 (2.0 with BCM). "
            "Options that are given count before those of the preset."
        ),
    ] = "base"
    seed: SeedOption = 0
    steps: SamplingSteps = 25
    guidance_scale: GuidanceScale = GUIDANCE
    scheduler: Scheduler = "dpmsolver++"
    batch: SamplingBatch = 8
    mask_method: Annotated[MaskMethod, described("u2net (default with a mask network), attention or threshold.")] = (
        MaskMethod.U2NET
    )
    match_mask: Annotated[
        bool,
        described(
            "Let a mask end where the change of the normal ends, at most a latent cell beyond the defect on the "
            "anomaly part. Masks of given lines, and on circuits, stay. Ours, not the paper's; only for pairs made on "
            "normals."
        ),
    ] = True
    anchored: Annotated[
        bool, described("Start from normals and keep their background. The default where normals are given.")
    ] = False
    strength: Annotated[
        FiniteFloat,
        described(
            "How far a normal is noised at the start, as a share of the noise schedule. 1 forgets it.", gt=0, le=1
        ),
    ] = 0.9
    sketch_strength: Annotated[
        Share,
        described(
            "Start from a changed real defect laid on the normal, noised so far; 0 for none. What comes of it stays "
            "near the copy. For bases too small to compose a defect."
        ),
    ] = 0.0
    blend_from: Annotated[
        Share, described("Share of the steps after which the background outside the defect is the normal's.")
    ] = 0.5
    part_guidance: Annotated[
        FiniteFloat,
        described(
            "How strongly the image is guided towards a part that is given, 0 to give none. The anomaly branch has a "
            "changed real defect where a defect is a line, such as a crack, where the surroundings of a type's defects "
            "are uneven, such as at the rim of a product, and on black and white photographs, like scans of circuits; "
            "otherwise image and part are made from noise. For bases too small to compose these; "
            "only on normals, with SAIM and without BCM.",
            ge=0,
        ),
    ] = 0.0
    match_detail: MatchDetail = True
    refine_strength: RefineStrength = 0.0
    on_object: OnObject = True
    region: Region = WHOLE
    anywhere: Anywhere = False
    sizes: Sizes = (1.0, 1.0)
    precision: SamplingPrecision = "fp32"

    @property
    def on_product(self) -> bool:
        """Return whether a defect beside the product is a fault."""
        return self.on_object

    @property
    def beyond(self) -> tuple[float, float]:
        """Return 1 and 1: a window grows with the defect."""
        return 1.0, 1.0

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the dataset."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
