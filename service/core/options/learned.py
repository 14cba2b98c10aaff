"""Options that the learned methods share; each of them chooses its own default."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, FiniteFloat

from service.core.options.common import CropKind, Precision, Seed
from service.core.options.common import Scheduler as SchedulerName
from service.core.options.declaration import ServedUpTo


def described(text: str, **limits: Any) -> Any:
    """Help, and range, of an option."""
    return Field(description=text, **limits)


def _box(box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    if not (0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1):
        raise ValueError("it must be left, top, right and bottom as shares of the photograph, from 0 to 1")
    return box


def _sizes(sizes: tuple[float, float]) -> tuple[float, float]:
    if not 0.05 <= sizes[0] <= sizes[1] <= 20:
        raise ValueError("it must be the smallest and the largest size, from 0.05 to 20")
    return sizes


Box = tuple[float, float, float, float]

WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
"""The whole photograph."""

TrainingSteps = Annotated[
    int,
    described("Optimiser steps, at most; DualAnoDiff's are 5 000. 0 leaves the base as it is, for comparison.", ge=0),
    ServedUpTo(100_000),
]
TrainingBatch = Annotated[
    int, described("Pairs per step. DualAnoDiff's authors use 4, or 2 with BCM.", ge=1), ServedUpTo(64)
]
Accumulate = Annotated[int, described("Batches whose gradients are added up before a step.", ge=1), ServedUpTo(64)]
LoraRate = Annotated[FiniteFloat, described("Learning rate of the LoRAs.", gt=0)]
LoraTargets = Annotated[
    Literal["attention", "all"],
    described(
        "Layers with a LoRA: attention (the paper's q, k, v, out) or all. "
        "All adds feed-forward layers, convolutions and the time embedding."
    ),
]
Warmup = Annotated[int, described("Steps of linear warm-up of the learning rates.", ge=0), ServedUpTo(100_000)]
ClipNorm = Annotated[FiniteFloat, described("Norm that gradients are clipped to.", gt=0)]
Resolution = Annotated[
    int,
    described("Side of the square the model sees, pixels. 0 takes the base's.", ge=0),
    ServedUpTo(2048),
]
View = Annotated[CropKind, described("Crops of whole images, or of a window around the defect.")]
Views = Annotated[int, described("Augmented crops per pair, encoded once before training.", ge=1), ServedUpTo(256)]
FlipHorizontal = Annotated[bool, described("Mirror left and right at random. Off for products that have a handedness.")]
FlipVertical = Annotated[bool, described("Mirror top and bottom at random. Off for products that have an upper end.")]
TrainingPrecision = Annotated[
    Precision,
    described("fp32, or bf16 autocast with fp32 weights. The authors' is fp32; on GPUs the default is bf16."),
]
GradientCheckpointing = Annotated[bool, described("Less memory for more time.")]
CheckpointEvery = Annotated[int, described("Steps between checkpoints.", ge=1), ServedUpTo(100_000)]
EarlyStop = Annotated[
    bool,
    described(
        "With 5 pairs and 501 steps or more, hold one pair out and keep the weights that predict it best. "
        "Training stops when that pair is no longer predicted better. "
        "Of several defect types, only one that has 3 pairs spares one. Ours; the paper trains to the last step."
    ),
]
SamplingSteps = Annotated[int, described("Denoising steps.", ge=1), ServedUpTo(1000)]
GuidanceScale = Annotated[
    FiniteFloat,
    described("Classifier-free guidance, 1 for none. DualAnoDiff's authors use 2.5, or 2.0 with BCM.", ge=0),
    ServedUpTo(100),
]
Scheduler = Annotated[SchedulerName, described("dpmsolver++, or the name of a diffusers scheduler class.")]
SamplingBatch = Annotated[
    int,
    described(
        "Pairs denoised together at most, fewer where memory is short. "
        "With guidance and both branches 8 are 32 rows, enough to fill a large GPU at 512².",
        ge=1,
    ),
    ServedUpTo(64),
]
SamplingPrecision = Annotated[Precision, described("fp32 or bf16. On GPUs the default is bf16.")]
SeedOption = Annotated[Seed, described("Seed of every random draw.")]
Region = Annotated[
    Box,
    described("Where defects may lie: left, top, right, bottom as shares of the photograph."),
    AfterValidator(_box),
]
Anywhere = Annotated[
    bool,
    described(
        "Lay defects anywhere, not only near where the real ones lay. "
        "In a region they may always. With anomalydiffusion they may always on a product that was found, too, "
        "and it then no longer looks for surroundings like those of the real ones."
    ),
]
MatchDetail = Annotated[
    bool,
    described(
        "Give defects the finest detail of real ones, which the model's size and autoencoder lose. "
        "Without it, what replaces a surface is smooth. Where the real photographs are black and white, defects are, "
        "too. Ours. Needs normals."
    ),
]
RefineStrength = Annotated[
    FiniteFloat,
    described(
        "Share of the steps that a second pass takes, 0 for none. What was drawn smaller than in the photograph is "
        "drawn once more, from what the first pass made of it, in windows, at up to four times the scale. It takes one "
        "to some twenty times as long as the first. Ours. Only on normals and without BCM.",
        ge=0,
        lt=1,
    ),
]
OnObject = Annotated[bool, described("Lay defects on the product, where one stands out from its background.")]
Sizes = Annotated[
    tuple[float, float],
    described("Smallest and largest size of a defect, as multiples of the real one's."),
    AfterValidator(_sizes),
]
