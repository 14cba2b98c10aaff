"""AnomalyDiffusion's options of training and sampling; a base's card may recommend others."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, FiniteFloat

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

MaskSource = Literal["real", "learned"]

SIZES = (0.8, 1.25)
"""Usual sizes, which the limits of the quality checks leave room for."""

RECOMMENDED_SAMPLING = frozenset({"steps", "faint_guidance", "scheduler", "precision"})
"""Options of sampling that a base's recommendations are meant for, too; its guidance is meant for DualAnoDiff."""


def _angles(angles: tuple[float, float]) -> tuple[float, float]:
    if not -180 <= angles[0] <= angles[1] <= 180:
        raise ValueError("it must be the smallest and the largest angle, from -180 to 180")
    return angles


@dataclass(frozen=True, slots=True)
class AnomalyTrainingConfig:
    """How to train one adapter. The base stays frozen but for a LoRA, where one is asked for."""

    steps: TrainingSteps = 5000
    early_stop: EarlyStop = True
    batch: TrainingBatch = 4
    accumulate: Accumulate = 1
    embedding_lr: Annotated[
        FiniteFloat,
        described("Learning rate of the anomaly embeddings. The authors' 0.02 is for another text encoder.", gt=0),
    ] = 2e-3
    encoder_lr: Annotated[FiniteFloat, described("Learning rate of the encoder of masks.", gt=0)] = 2e-4
    spatial: Annotated[
        bool,
        described("Tell the model where the mask lies, by four more words of the prompt. Off is the paper's ablation."),
    ] = True
    fill_rank: Annotated[
        int,
        described(
            "Rank of a LoRA that learns to fill masks, 0 for none. "
            "Ours: the paper's base stays frozen, and a small base cannot draw a defect from words alone.",
            ge=0,
        ),
        ServedUpTo(256),
    ] = 0
    inpainting: Annotated[
        bool,
        described(
            "Show the model the mask and its surroundings, as models made for inpainting see them. "
            "Ours: the paper's base learns of the mask by words alone, too coarse for a small base."
        ),
    ] = False
    lr: LoraRate = 2e-5
    lora_targets: LoraTargets = "attention"
    warmup: Warmup = 0
    clip_norm: ClipNorm = 1.0
    resolution: Resolution = 0
    view: View = "window"
    views: Views = 16
    composite_views: Annotated[
        int,
        described(
            "Crops per pair that show its defect copied to good parts, 0 for none. They are learned from beside those "
            "of the photograph itself, where good parts are surfaces; needs normals. "
            "Ours: few photographs show a defect on few surfaces.",
            ge=0,
        ),
        ServedUpTo(256),
    ] = 0
    rotation: Annotated[
        FiniteFloat, described("Largest angle by which training crops are turned, degrees.", ge=0, le=180)
    ] = 20.0
    flip_horizontal: FlipHorizontal = True
    flip_vertical: FlipVertical = True
    match_contrast: Annotated[
        bool,
        described(
            "After training, draw some defects on good parts, and choose normal_guidance so that they are as visible "
            "as real ones. Each pair then gets the contrast of one of the real defects; where 1 is enough, none gets "
            "weaker. Ours: a small base draws defects too faint. Without good parts, normal_guidance stays 1."
        ),
    ] = True
    mask_generator_steps: Annotated[
        int,
        described(
            "Steps of learning to draw masks by textual inversion, 0 for none. "
            "Worth it on a large base alone; real masks can be changed without.",
            ge=0,
        ),
        ServedUpTo(100_000),
    ] = 0
    precision: TrainingPrecision = "fp32"
    gradient_checkpointing: GradientCheckpointing = False
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
class AnomalySamplingConfig:
    """How masks are chosen, and filled with defects."""

    seed: SeedOption = 0
    steps: SamplingSteps = 25
    guidance_scale: GuidanceScale = 1.0
    normal_guidance: Annotated[
        FiniteFloat,
        described(
            "How far defects are pushed away from the good surface that they replace; 1 leaves them as the model draws "
            "them. 0 takes what match_contrast found in training for each type of defect, or 1, and, if the adapter "
            "was trained with match_contrast, gives each pair the contrast of a real defect, but none a weaker one "
            "where it found 1; any other value does not.",
            ge=0,
            le=5,
        ),
    ] = 0.0
    faint_guidance: Annotated[
        FiniteFloat,
        described(
            "Up to how many times as far a thin defect is pushed where it is faint; 1 pushes it alike everywhere. "
            "Our addition: a small base draws a long defect in pieces.",
            ge=1,
            le=5,
        ),
    ] = 1.0
    scheduler: Scheduler = "dpmsolver++"
    batch: SamplingBatch = 8
    reweighting: Annotated[
        bool,
        described(
            "Attend more to the defect where it is still faint (the paper's adaptive attention re-weighting). "
            "Meant for textures; turn it off for parts that are bent, broken or missing."
        ),
    ] = True
    mask_source: Annotated[
        MaskSource,
        described(
            "Where masks come from: real or learned. "
            "Real turns, scales, bends, mirrors and moves the real ones; learned draws new ones, if the adapter can."
        ),
    ] = "real"
    match_detail: MatchDetail = True
    refine_strength: RefineStrength = 0.0
    on_object: OnObject = True
    region: Region = WHOLE
    anywhere: Anywhere = False
    defects_per_picture: Annotated[
        int, described("Defects per picture, apart from each other; fewer where there is no room.", ge=1, le=8)
    ] = 1
    sizes: Sizes = SIZES
    angles: Annotated[
        tuple[float, float],
        described("Smallest and largest angle by which a real mask is turned, degrees."),
        AfterValidator(_angles),
    ] = (-25.0, 25.0)
    precision: SamplingPrecision = "fp32"

    @property
    def anchored(self) -> bool:
        """Return True: every defect is drawn on a normal image."""
        return True

    @property
    def on_product(self) -> bool:
        """Return whether a defect beside the product is a fault."""
        return self.on_object

    @property
    def beyond(self) -> tuple[float, float]:
        """Return how far the sizes go beyond the usual ones, as factors of length."""
        return min(1.0, self.sizes[0] / SIZES[0]), max(1.0, self.sizes[1] / SIZES[1])

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the dataset."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
