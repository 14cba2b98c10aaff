"""The thresholds of the quality checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, FiniteFloat

from service.core.options.common import Share

Ratio = Annotated[FiniteFloat, Field(ge=0)]
GreyLevels = Annotated[FiniteFloat, Field(ge=0, le=255)]


@dataclass(frozen=True, slots=True)
class QualityLimits:
    """Thresholds of the checks. Shares and likenesses are in [0, 1], grey levels in 0–255."""

    min_area_ratio: Annotated[
        Ratio, Field(description="Smallest mask, as a multiple of the smallest real mask's share of the window.")
    ] = 0.2
    max_area_ratio: Annotated[
        FiniteFloat,
        Field(gt=0, description="Largest mask, as a multiple of the largest real mask's share of the window."),
    ] = 4.0
    min_width_ratio: Annotated[
        Ratio,
        Field(
            description="Least mean width of a mask, as a multiple of what is usual at least among defects like the "
            "real ones."
        ),
    ] = 1.0
    max_width_ratio: Annotated[
        Ratio,
        Field(
            description="Greatest mean width of a mask, as a multiple of what is usual at most among defects like the "
            "real ones. A smudge is wider than a crack of the same area."
        ),
    ] = 1.0
    full_area: Annotated[Share, Field(description="A mask that covers this share of the window is full.")] = 0.9
    border_ratio: Annotated[
        Ratio,
        Field(
            description="Greatest share of the outline on the image border, as a multiple of the real masks' greatest."
        ),
    ] = 1.25
    min_border_share: Annotated[
        Share,
        Field(description="Share of the outline on the image border that always passes, even if real masks have less."),
    ] = 0.1
    max_cut_share: Annotated[
        Share,
        Field(
            description="Greatest share of the outline on sides of the window that lie inside the image. "
            "A defect that touches them has been cut off."
        ),
    ] = 0.05
    max_off_object: Annotated[Share, Field(description="Greatest share of the mask outside the object mask.")] = 0.3
    max_disagreement: Annotated[
        GreyLevels,
        Field(
            description="Greatest mean difference of image and part inside the mask, where the part shows something, "
            "in grey levels. "
            "Real pairs through an autoencoder reach about 15, unrelated ones about 50."
        ),
    ] = 32.0
    min_visibility_ratio: Annotated[
        Ratio,
        Field(
            description="Least visibility, as a multiple of the least visible real defect's, both as shares of the "
            "brightness around the defect."
        ),
    ] = 0.35
    min_visibility: Annotated[
        GreyLevels, Field(description="Least visibility in grey levels, even if a real defect has less.")
    ] = 2.0
    ring: Annotated[
        int,
        Field(
            ge=1,
            le=64,
            description="Width in pixels of the rings inside and outside the outline that visibility compares.",
        ),
    ] = 3
    max_unlikeness: Annotated[
        Ratio,
        Field(
            description="Greatest distance from the real defects, in standard deviations of the most unusual "
            "statistics. Where two real defects are farther from the others than this, the nearer one's counts."
        ),
    ] = 5.5
    min_change_ratio: Annotated[
        Ratio,
        Field(
            description="Least share of the mask that changed on the good part, as a multiple of real defects' share. "
            "Applies to the whole mask and to its outermost pixels; real defects are laid on the good parts to measure."
        ),
    ] = 0.75
    min_change_inside: Annotated[
        Share, Field(description="Least share of the change near the mask that lies inside the mask.")
    ] = 0.5
    max_ledge: Annotated[
        Ratio,
        Field(
            description="Greatest fall of the change within two pixels outside the mask, as a multiple of the change "
            "inside. A change that ends outside its mask has a mask that is too small."
        ),
    ] = 0.45
    defect_copy: Annotated[
        Share,
        Field(
            description="Likeness from which on a candidate's defect counts as a copy of a real or accepted one. "
            "The defects are compared inside their masks, turned, mirrored and scaled alike."
        ),
    ] = 0.92
    scene_copy: Annotated[
        Share, Field(description="Likeness to a whole real picture from which on a candidate counts as its copy.")
    ] = 0.95
    accepted_copy: Annotated[
        Share,
        Field(
            description="Likeness of a whole picture to an accepted one from which on it counts as its copy. "
            "Higher than to real ones: hundreds are compared, and chance likeness grows with their number."
        ),
    ] = 0.97
    max_copy: Annotated[
        Share,
        Field(
            description="Highest threshold of the copy checks. Where the real pairs are alike themselves, the "
            "threshold is halfway between their usual likeness and 1, but never above this."
        ),
    ] = 0.98
    reject: Annotated[
        bool,
        Field(description="Whether to reject; else every pair whose mask is neither empty nor full is accepted."),
    ] = True
