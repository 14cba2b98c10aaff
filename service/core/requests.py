"""What may be asked for: the requests for an adapter and for a job, checked by type and range.

None means that the base's recommendation decides; only the seed is always filled in, so that any answer can be made
again. The lower ends of the ranges are those of the library, which checks again with the base at hand; the upper ends
keep one request from taking a worker for ever.
"""

from __future__ import annotations

import secrets
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

Seed = Annotated[int, Field(ge=0, lt=2**63)]
Share = Annotated[FiniteFloat, Field(ge=0, le=1)]
Positive = Annotated[FiniteFloat, Field(gt=0)]
NonNegative = Annotated[FiniteFloat, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Phrase = Annotated[
    str, Field(min_length=1, max_length=80, pattern=r"^[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]*$")
]

Scheduler = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_+]+$")]
"""The list of schedulers is diffusers', which only the workers have."""


def new_seed() -> int:
    return secrets.randbelow(2**31)


def _seed_or_new(value: Any) -> Any:
    return new_seed() if value is None else value


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TrainingOptions(_Request):
    """How to train: the fields of the library's `TrainingConfig`."""

    steps: Annotated[int, Field(ge=1, le=100_000)] | None = None
    early_stop: bool | None = None
    batch: Annotated[int, Field(ge=1, le=64)] | None = None
    accumulate: Annotated[int, Field(ge=1, le=64)] | None = None
    rank: Annotated[int, Field(ge=1, le=256)] | None = None
    text_rank: Annotated[int, Field(ge=0, le=256)] | None = None
    lr: Positive | None = None
    interaction_lr: Positive | None = None
    lora_targets: Literal["attention", "all"] | None = None
    warmup: Annotated[int, Field(ge=0, le=100_000)] | None = None
    clip_norm: Positive | None = None
    resolution: Annotated[int, Field(ge=0, le=2048)] | None = None
    view: Literal["whole", "window"] | None = None
    views: Annotated[int, Field(ge=1, le=256)] | None = None
    flip_horizontal: bool | None = None
    flip_vertical: bool | None = None
    bcm: bool | None = None
    prompts: Literal["rare", "names"] | None = None
    defect_weight: NonNegative | None = None
    composites: Annotated[int, Field(ge=0, le=10_000)] | None = None
    real_share: Share | None = None
    prior_share: Share | None = None
    reference_init: bool | None = None
    precision: Literal["fp32", "bf16"] | None = None
    gradient_checkpointing: bool | None = None
    mask_steps: Annotated[int, Field(ge=0, le=100_000)] | None = None
    checkpoint_every: Annotated[int, Field(ge=1, le=100_000)] | None = None
    seed: Annotated[Seed, BeforeValidator(_seed_or_new)] = Field(default_factory=new_seed)


class AdapterRequest(_Request):
    """The fields beside the uploaded files.

    Attributes:
        name: what the user calls the adapter.
        object, defect: words for the product and its flaw.
        base: name of the base model; None takes the server's.
    """

    name: Phrase
    object: Phrase = "product"
    defect: Phrase = "defect"
    base: Annotated[str, Field(max_length=64, pattern=r"^[a-z0-9][a-z0-9._-]*$")] | None = None
    method: Literal["dualanodiff"] = "dualanodiff"
    training: TrainingOptions = Field(default_factory=TrainingOptions)


class QualityOptions(_Request):
    """Thresholds of the quality checks: the fields of the library's `QualityLimits`."""

    min_area_ratio: NonNegative | None = None
    max_area_ratio: Positive | None = None
    full_area: Share | None = None
    border_ratio: NonNegative | None = None
    min_border_share: Share | None = None
    max_cut_share: Share | None = None
    max_off_object: Share | None = None
    max_disagreement: Annotated[FiniteFloat, Field(ge=0, le=255)] | None = None
    min_visibility_ratio: NonNegative | None = None
    min_visibility: Annotated[FiniteFloat, Field(ge=0, le=255)] | None = None
    ring: Annotated[int, Field(ge=1, le=64)] | None = None
    defect_copy: Share | None = None
    scene_copy: Share | None = None
    accepted_copy: Share | None = None
    max_copy: Share | None = None


class JobRequest(_Request):
    """A request for pairs; the fields of the library's `SamplingConfig`, the quality limits, and the zip's layouts.

    Attributes:
        num_pairs: accepted pairs.
        formats: layouts to add to the dataset.
        max_attempts: candidates to try at most; None for ten per pair.
    """

    adapter_id: Annotated[str, Field(pattern=r"^adp_[0-9a-z]{26}$")]
    num_pairs: Count
    seed: Annotated[Seed, BeforeValidator(_seed_or_new)] = Field(default_factory=new_seed)
    steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    guidance_scale: Annotated[FiniteFloat, Field(ge=0, le=100)] | None = None
    scheduler: Scheduler | None = None
    batch: Annotated[int, Field(ge=1, le=64)] | None = None
    mask_method: Literal["u2net", "attention", "threshold"] | None = None
    anchored: bool | None = None
    strength: Annotated[FiniteFloat, Field(gt=0, le=1)] | None = None
    sketch_strength: Share | None = None
    blend_from: Share | None = None
    agreement: Share | None = None
    precision: Literal["fp32", "bf16"] | None = None
    formats: Annotated[tuple[Literal["mvtec", "coco", "yolo", "labelstudio"], ...], Field(max_length=4)] = ()
    limits: QualityOptions = Field(default_factory=QualityOptions)
    max_attempts: Annotated[int, Field(ge=1, le=1_000_000)] | None = None

    @field_validator("max_attempts")
    @classmethod
    def _enough(cls, max_attempts: int | None, others: ValidationInfo) -> int | None:
        pairs = others.data.get("num_pairs")
        if max_attempts is not None and pairs is not None and max_attempts < pairs:
            told = "{attempts} attempts cannot make {pairs} pairs: allow at least as many, better ten per pair"
            raise PydanticCustomError("too_few_attempts", told, {"attempts": max_attempts, "pairs": pairs})
        return max_attempts
