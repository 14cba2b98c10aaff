"""Options that the learned methods share; each of them chooses its own default."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, FiniteFloat

from service.core.options.common import CropKind, Precision, Seed
from service.core.options.common import Scheduler as SchedulerName
from service.core.options.declaration import ServedUpTo


def described(text: str, **limits: Any) -> Any:
    """Help, and range, of an option."""
    return Field(description=text, **limits)


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
        "Training stops when that pair is no longer predicted better. Ours; the paper trains to the last step."
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
