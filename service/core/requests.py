"""The requests for adapters and jobs, checked by type and range.

An option that is None was not chosen, and takes the value that the base recommends. Only the seed is always filled in,
so that every result can be reproduced. The options are declared in `service.core.options`; the library checks them
again when the base is known.
"""

from __future__ import annotations

import secrets
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from service.core.options.common import Seed, Share
from service.core.options.declaration import declared, with_options
from service.core.options.evaluation import EvaluationOptions
from service.core.options.methods import DEFAULT_METHOD, MethodName, offered
from service.core.options.quality import QualityLimits

Phrase = Annotated[
    str, Field(min_length=1, max_length=80, pattern=r"^[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]*$")
]


def new_seed() -> int:
    return secrets.randbelow(2**31)


def _seed_or_new(value: Any) -> Any:
    return new_seed() if value is None else value


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


@with_options(offered("training"))
class TrainingOptions(_Request):
    """Options of a training; which of them apply depends on the method."""

    seed: Annotated[Seed, BeforeValidator(_seed_or_new)] = Field(default_factory=new_seed)


class AdapterRequest(_Request):
    """The fields of an upload beside its files.

    Attributes:
        name: the user's name for the adapter.
        object, defect: names of the product and of its defect.
        base: name of the base model; None means the server's default.
        method: generation method.
    """

    name: Phrase
    object: Phrase = "product"
    defect: Phrase = "defect"
    base: Annotated[str, Field(max_length=64, pattern=r"^[a-z0-9][a-z0-9._-]*$")] | None = None
    method: MethodName = DEFAULT_METHOD
    training: TrainingOptions = Field(default_factory=TrainingOptions)


@with_options(declared(QualityLimits))
class QualityOptions(_Request):
    """Thresholds of the quality checks."""


class PlacementRequest(_Request):
    """A place to draw a defect in.

    Attributes:
        polygon: the outline of the mask, x and y as shares of the photograph's width and height.
        normal: name of the good part to draw on; None for one of them in turn.
    """

    polygon: Annotated[
        tuple[tuple[Share, Share], ...],
        Field(min_length=3, max_length=1000, description="Outline of the mask: x and y as shares of the photograph."),
    ]
    normal: Annotated[
        str | None, Field(max_length=255, description="Name of the good part to draw on; null for one in turn.")
    ] = None


@with_options(offered("sampling"))
class JobRequest(_Request):
    """A request for a dataset of pairs, with the options of sampling; which apply depends on the adapter's method.

    Attributes:
        num_pairs: number of accepted pairs.
        formats: further layouts of the dataset.
        limits: thresholds of the quality checks.
        max_attempts: most candidates to try; None for ten per pair.
        placements: masks to draw defects in, pair by pair in turn; None where the method chooses them.
        evaluation: measures the pairs on the adapter's held-out photographs; None for no evaluation.
    """

    adapter_id: Annotated[str, Field(pattern=r"^adp_[0-9a-z]{26}$")]
    num_pairs: Annotated[int, Field(ge=1)]
    seed: Annotated[Seed, BeforeValidator(_seed_or_new)] = Field(default_factory=new_seed)
    formats: Annotated[tuple[Literal["mvtec", "coco", "yolo", "labelstudio"], ...], Field(max_length=4)] = ()
    limits: QualityOptions = Field(default_factory=QualityOptions)
    max_attempts: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    placements: Annotated[
        tuple[PlacementRequest, ...] | None,
        Field(
            min_length=1,
            max_length=1000,
            description="Masks to draw defects in, one per candidate in turn. Of anomalydiffusion alone.",
        ),
    ] = None
    evaluation: Annotated[
        EvaluationOptions | None,
        Field(
            description="Train detectors with and without the job's pairs, and test them on the adapter's held-out "
            "photographs; the verdict is in the job and in `dataset.json`."
        ),
    ] = None

    @field_validator("max_attempts")
    @classmethod
    def _enough(cls, max_attempts: int | None, others: ValidationInfo) -> int | None:
        pairs = others.data.get("num_pairs")
        if max_attempts is not None and pairs is not None and max_attempts < pairs:
            message = "{attempts} attempts cannot yield {pairs} pairs: allow at least {pairs}, better ten per pair"
            raise PydanticCustomError("too_few_attempts", message, {"attempts": max_attempts, "pairs": pairs})
        return max_attempts
