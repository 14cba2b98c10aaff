"""Options of the baselines copy-paste and Perlin noise: how defects are collected, and how they are laid on normals."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import Field, FiniteFloat

from service.core.options.common import CropKind, Precision, Seed
from service.core.options.declaration import ServedUpTo

Blending = Literal["feather", "poisson", "none"]

CANDIDATES_AT_ONCE = 8
"""Candidates of one block of a job that several workers share; it changes no candidate."""


@dataclass(frozen=True, slots=True)
class CollectionConfig:
    """How an adapter of a baseline is made: it keeps the real pairs, and learns nothing."""

    resolution: Annotated[
        int,
        Field(description="Side of the square the model sees, pixels. 0 takes the base's.", ge=0),
        ServedUpTo(2048),
    ] = 0
    view: Annotated[CropKind, Field(description="Crops of whole images, or of a window around the defect.")] = "whole"
    flip_horizontal: Annotated[
        bool, Field(description="Mirror left and right at random. Off for products that have a handedness.")
    ] = True
    flip_vertical: Annotated[
        bool, Field(description="Mirror top and bottom at random. Off for products that have an upper end.")
    ] = True
    seed: Annotated[Seed, Field(description="Seed of every random draw.")] = 0

    @property
    def steps(self) -> int:
        """Return 0: nothing is trained."""
        return 0

    @property
    def batch(self) -> int:
        """Return 1: pairs are stored one by one."""
        return 1

    @property
    def flips(self) -> tuple[bool, bool]:
        """Return whether pictures may be mirrored, left to right and top to bottom."""
        return self.flip_horizontal, self.flip_vertical

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for the card."""
        return asdict(self)

    def with_half_batch(self) -> Self:
        """Return the same settings: one pair cannot be halved."""
        return self


@dataclass(frozen=True, slots=True)
class _OnNormals:
    """What the sampling of both baselines has in common."""

    seed: Annotated[Seed, Field(description="Seed of every random draw.")] = 0

    @property
    def batch(self) -> int:
        """Return how many candidates a block of a shared job has."""
        return CANDIDATES_AT_ONCE

    @property
    def precision(self) -> Precision:
        """Return the precision of the network that finds products."""
        return "fp32"

    @property
    def anchored(self) -> bool:
        """Return True: every candidate lies on a normal image."""
        return True

    @property
    def on_product(self) -> bool:
        """Return True: what lies beside the product is a fault."""
        return True

    @property
    def beyond(self) -> tuple[float, float]:
        """Return 1 and 1: sizes cannot be chosen."""
        return 1.0, 1.0

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for the dataset."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class CopyPasteConfig(_OnNormals):
    """How real defects are copied to normal images."""

    blending: Annotated[
        Blending,
        Field(
            description="How a copy meets its surroundings: feather, poisson or none. "
            "Feather fades it out over a few pixels; poisson keeps its gradients and takes the colours at its outline "
            "from the normal; none leaves a hard edge, which black and white photographs always have."
        ),
    ] = "feather"
    deform: Annotated[
        bool,
        Field(
            description="Bend and scale copies strongly, at the model's resolution. "
            "These are the sketches that DualAnoDiff's sketch_strength starts from, without any model; blending does "
            "not apply."
        ),
    ] = False


@dataclass(frozen=True, slots=True)
class PerlinConfig(_OnNormals):
    """How noise-shaped patches of foreign texture are laid on normal images."""

    smallest_area: Annotated[
        FiniteFloat,
        Field(description="Smallest patch, as a multiple of the smallest real mask's share of the window.", gt=0),
        ServedUpTo(100),
    ] = 0.5
    largest_area: Annotated[
        FiniteFloat,
        Field(description="Largest patch, as a multiple of the largest real mask's share of the window.", gt=0),
        ServedUpTo(100),
    ] = 1.5
