"""The requests for adapters and jobs, checked by type and range.

An option that is None was not chosen, and takes the value that the base recommends. Only the seed is always filled in,
so that every result can be reproduced. The options are declared in `service.core.options`; the library checks them
again when the base is known.
"""

from __future__ import annotations

import secrets
from types import UnionType
from typing import Annotated, Any, Literal, Self, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from service.core.options.common import Seed, Share
from service.core.options.declaration import declared, with_options
from service.core.options.evaluation import EvaluationOptions
from service.core.options.methods import DEFAULT_METHOD, MethodName, offered
from service.core.options.quality import QualityLimits
from service.core.strict_json import parse

Phrase = Annotated[
    str, Field(min_length=1, max_length=80, pattern=r"^[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]*$")
]


def new_seed() -> int:
    return secrets.randbelow(2**31)


def _seed_or_new(value: Any) -> Any:
    return new_seed() if value is None else value


def _json_object(value: Any) -> Any:
    """Parse the text of a form's field."""
    if not isinstance(value, str):
        return value
    try:
        return parse(value)
    except ValueError as error:
        message = 'it must be a JSON object such as {"line": "3"}'
        raise PydanticCustomError("metadata", message) from error


MOST_CORNERS = 4000
"""Of all outlines of one list together."""

RandomSeed = Annotated[
    Seed,
    BeforeValidator(_seed_or_new),
    Field(description="Seed of every random draw; drawn at random if it is left out."),
]

Metadata = Annotated[
    dict[Annotated[str, Field(min_length=1, max_length=40)], Annotated[str, Field(max_length=500)]],
    Field(max_length=16),
    BeforeValidator(_json_object),
    Field(
        description="Up to 16 names and texts of your own, which are shown with the record and change nothing.",
    ),
]


Webhook = Annotated[
    str | None,
    Field(
        min_length=1,
        max_length=500,
        description="Address on a host that the server allows, to which it sends a signed message when this has ended.",
    ),
]


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse true and false where a number is due, which Python would take for 1 and 0."""
        kinds = _kinds(cls.model_fields[str(info.field_name)].annotation)
        if isinstance(value, bool) and _is_number(kinds) and bool not in kinds:
            raise PydanticCustomError("bool", f"it is {str(value).lower()}, which is no number")
        return value


class _Json(_Request):
    """A request that is sent as JSON, which has numbers: text is none."""

    @field_validator("*", mode="before")
    @classmethod
    def _no_text(cls, value: Any, info: ValidationInfo) -> Any:
        kinds = _kinds(cls.model_fields[str(info.field_name)].annotation)
        if isinstance(value, str) and _is_number(kinds) and not _takes_text(kinds):
            raise PydanticCustomError("text", "it is text; send it without quotes")
        return value


def _kinds(annotation: Any) -> set[Any]:
    """The types that an annotation is a union of."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _kinds(get_args(annotation)[0])
    if origin in {Union, UnionType}:
        return {kind for each in get_args(annotation) for kind in _kinds(each)}
    return {annotation}


def _is_number(kinds: set[Any]) -> bool:
    """Return whether true or false, or text, would pass for a number here; pydantic refuses them elsewhere."""
    return not kinds.isdisjoint({int, float, bool})


def _takes_text(kinds: set[Any]) -> bool:
    return any(get_origin(kind) is Literal or (isinstance(kind, type) and issubclass(kind, str)) for kind in kinds)


@with_options(offered("training"))
class TrainingOptions(_Request):
    """Options of a training; which of them apply depends on the method."""

    seed: RandomSeed = Field(default_factory=new_seed)


class AdapterRequest(_Request):
    """The fields of an upload beside its files.

    Attributes:
        name: the user's name for the adapter.
        object, defect: names of the product and of its defect.
        base: name of the base model; None means the server's default.
        method: generation method.
    """

    name: Annotated[Phrase, Field(description="Your name for the adapter.")]
    object: Annotated[Phrase, Field(description="Name of the product.")] = "product"
    defect: Annotated[Phrase, Field(description="Name of the defect.")] = "defect"
    base: Annotated[
        str | None,
        Field(max_length=64, pattern=r"^[a-z0-9][a-z0-9._-]*$", description="A base that `GET /bases` lists."),
    ] = None
    method: Annotated[MethodName, Field(description="How pairs are generated.")] = DEFAULT_METHOD
    training: TrainingOptions = Field(default_factory=TrainingOptions)
    metadata: Metadata = Field(default_factory=dict)
    webhook: Webhook = None


@with_options(declared(QualityLimits))
class QualityOptions(_Json):
    """Thresholds of the quality checks."""


class RegionRequest(_Request):
    """A part of a photograph, as an outline or as a drawn mask.

    Attributes:
        polygon: the outline, x and y as shares of the photograph's width and height.
        mask: base64 of a PNG of the photograph's size, white is the part.
        normal: name of the good part that it is a part of; None for all.
    """

    polygon: Annotated[
        tuple[tuple[Share, Share], ...] | None,
        Field(min_length=3, max_length=1000, description="Outline: x and y as shares of the photograph."),
    ] = None
    mask: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=4_000_000,
            description="Drawn mask, instead of an outline: base64 of a PNG of the photograph's size, or its data URL; "
            "white is the part, or what is painted on a transparent layer. Stray pixels beside it are left out. "
            "Records show `sha256:` and its hash.",
        ),
    ] = None
    normal: Annotated[str | None, Field(max_length=255, description="Name of the good part; null for all.")] = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.polygon is None) == (self.mask is None):
            raise PydanticCustomError("one_of_both", "give either polygon or mask")
        return self


class PlacementRequest(RegionRequest):
    """A place to draw a defect in, as an outline or as a drawn mask.

    Attributes:
        normal: name of the good part to draw on; None for any that it fits, chosen anew for every pair.
        defect: the defect type to draw; None for any.
    """

    normal: Annotated[
        str | None,
        Field(
            max_length=255,
            description="Name of the good part to draw on; null for any that it fits, chosen anew for every pair.",
        ),
    ] = None
    defect: Annotated[
        Phrase | None, Field(description="Defect type to draw, of an adapter that learned several; null for any.")
    ] = None


def _without_num_pairs(schema: dict[str, Any]) -> None:
    """`defects` can stand for it."""
    schema["required"].remove("num_pairs")


@with_options(offered("sampling"))
class JobRequest(_Json):
    """A request for a dataset of pairs, with the options of sampling; which apply depends on the adapter's method.

    Attributes:
        num_pairs: number of accepted pairs.
        defects: how many of them show each defect type; None to spread them evenly over those that the adapter learned.
        formats: further layouts of the dataset.
        limits: thresholds of the quality checks.
        max_attempts: most candidates to try; None for ten per pair.
        placements: masks to draw defects in, each for as many pairs as the others; None where the method chooses them.
        allowed, forbidden: where defects may lie, and where not; None for everywhere, and nowhere.
        evaluation: measures the pairs on the adapter's held-out photographs; None for no evaluation.
    """

    model_config = ConfigDict(json_schema_extra=_without_num_pairs)

    adapter_id: Annotated[str, Field(pattern=r"^adp_[0-9a-z]{26}$", description="An adapter that has succeeded.")]
    num_pairs: Annotated[
        int, Field(ge=1, description="Pairs to accept; may be left out with `defects`, whose sum it is then.")
    ]
    defects: Annotated[
        dict[Phrase, Annotated[int, Field(strict=True, ge=1)]] | None,
        Field(
            min_length=1,
            max_length=64,
            description="Pairs of each defect type, of an adapter that learned several; types that are not named get "
            "none. By default `num_pairs` is spread evenly, and the first types, in alphabetical order, get what is "
            "left over.",
        ),
    ] = None
    seed: RandomSeed = Field(default_factory=new_seed)
    formats: Annotated[
        tuple[Literal["mvtec", "coco", "yolo", "labelstudio"], ...],
        Field(max_length=4, description="Further layouts of the dataset."),
    ] = ()
    limits: QualityOptions = Field(default_factory=QualityOptions, description="Thresholds of the quality checks.")
    max_attempts: Annotated[
        int | None, Field(ge=1, le=1_000_000, description="Most candidates to try; ten per pair if it is left out.")
    ] = None
    placements: Annotated[
        tuple[PlacementRequest, ...] | None,
        Field(
            min_length=1,
            max_length=1000,
            description="Masks to draw defects in, each for as many pairs as the others, the first ones for one more "
            "where they do not divide. Of anomalydiffusion alone.",
        ),
    ] = None
    allowed: Annotated[
        tuple[RegionRequest, ...] | None,
        Field(
            min_length=1,
            max_length=1000,
            description="Where defects may lie: in any of these. Good parts that none is a part of are not used. Of "
            "dualanodiff and anomalydiffusion.",
        ),
    ] = None
    forbidden: Annotated[
        tuple[RegionRequest, ...] | None,
        Field(
            min_length=1,
            max_length=1000,
            description="Where defects may not lie, even if it is allowed. Of dualanodiff and anomalydiffusion.",
        ),
    ] = None
    evaluation: Annotated[
        EvaluationOptions | None,
        Field(
            description="Train detectors with and without the job's pairs, and test them on the adapter's held-out "
            "photographs; the verdict is in the job and in `dataset.json`."
        ),
    ] = None

    metadata: Metadata = Field(default_factory=dict)
    webhook: Webhook = None

    @model_validator(mode="before")
    @classmethod
    def _summed(cls, values: Any) -> Any:
        """Take the sum of the types' pairs where their number is left out."""
        defects = values.get("defects") if isinstance(values, dict) and "num_pairs" not in values else None
        if not isinstance(defects, dict) or not all(type(count) is int for count in defects.values()):
            return values
        return {**values, "num_pairs": sum(defects.values())}

    @field_validator("defects")
    @classmethod
    def _as_many(cls, defects: dict[str, int] | None, others: ValidationInfo) -> dict[str, int] | None:
        pairs = others.data.get("num_pairs")
        if defects is not None and pairs is not None and sum(defects.values()) != pairs:
            message = "they are {sum} pairs together, and num_pairs is {pairs}: leave num_pairs out"
            raise PydanticCustomError("other_sum", message, {"sum": sum(defects.values()), "pairs": pairs})
        return defects

    @field_validator("evaluation", mode="before")
    @classmethod
    def _profile_in_object(cls, asked: Any) -> Any:
        if isinstance(asked, str | bool):
            message = 'it must be an object such as {"profile": "quick", "seeds": 3}'
            raise PydanticCustomError("evaluation", message)
        return asked

    @field_validator("placements", "allowed", "forbidden")
    @classmethod
    def _few_corners(cls, parts: tuple[RegionRequest, ...] | None) -> tuple[RegionRequest, ...] | None:
        """Keep records small: they hold the outlines."""
        corners = sum(len(part.polygon or ()) for part in parts or ())
        if corners > MOST_CORNERS:
            message = "the outlines have {corners} corners together, at most {most} are accepted: send masks instead"
            raise PydanticCustomError("too_many_corners", message, {"corners": corners, "most": MOST_CORNERS})
        return parts

    @field_validator("max_attempts")
    @classmethod
    def _enough(cls, max_attempts: int | None, others: ValidationInfo) -> int | None:
        pairs = others.data.get("num_pairs")
        if max_attempts is not None and pairs is not None and max_attempts < pairs:
            message = "{attempts} attempts cannot yield {pairs} pairs: allow at least {pairs}, better ten per pair"
            raise PydanticCustomError("too_few_attempts", message, {"attempts": max_attempts, "pairs": pairs})
        return max_attempts


def unset(wanted: AdapterRequest | JobRequest) -> set[str]:
    """Names of the fields that are of no work's concern and were left empty, which records need not keep."""
    return {name for name in ("metadata", "webhook") if not getattr(wanted, name)}
