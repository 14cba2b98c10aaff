"""Defines the data types and their names (see the table in the README).

At the library's edges images are NumPy arrays; inside, pixels are float NCHW tensors in [-1, 1] and latents are
`(B, C_lat, H/f, W/f)` tensors already multiplied by the VAE's scaling factor. The branch axis has size 2: index 0 is
the global branch (the whole image `I`), index 1 the anomaly branch (the anomaly part `I_a`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from service.core.strict_json import without_nan

ImageArray = NDArray[np.uint8]
"""`(H, W, 3)` RGB, 0–255."""

MaskArray = NDArray[np.bool_]
"""`(H, W)`, True = defect (255 in files)."""

GREY = 127
"""File value of a pixel that is 0 in [-1, 1]: the background of an anomaly part `I_a = I × M_a`."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A real few-shot example: the whole defective image and its mask, of the same size."""

    name: str
    image: ImageArray
    mask: MaskArray


@dataclass(frozen=True, slots=True)
class Candidate:
    """A generated pair, before and after the quality checks.

    Attributes:
        index: position in the job's sequence of candidates, from 0.
        seed: the seed of this pair alone.
        image: `(H, W, 3)` uint8, the whole image.
        mask: `(H, W)` bool, the defect.
        part: `(H, W, 3)` uint8, the generated anomaly part on mid-grey, aligned with `image`, and grey where it shows
            less of the defect than the image; None for a method that generates none.
        normal: name of the normal image it was anchored on, or None.
        window: `(left, top, right, bottom)` of the generated region in `image`, in pixels; None for the whole image.
        scores: numbers measured on the way (alignment, contrast …), for the manifest.
        review: who approved the pair and when, as JSON; None if nobody has looked at it.
        defect: its defect type, where an adapter has several; otherwise None.
        given: name of the mask that it fills, where masks are given; otherwise None.
    """

    index: int
    seed: int
    image: ImageArray
    mask: MaskArray
    part: ImageArray | None = None
    normal: str | None = None
    window: tuple[int, int, int, int] | None = None
    scores: dict[str, float] = field(default_factory=dict)
    review: dict[str, Any] | None = None
    defect: str | None = None
    given: str | None = None

    def record(self) -> dict[str, Any]:
        """Return everything except the images, as JSON."""
        record = {
            "index": self.index,
            "seed": self.seed,
            "normal": self.normal,
            "window": self.window,
            "scores": without_nan(self.scores),
        }
        optional = {"defect": self.defect, "given": self.given}
        return record | {name: value for name, value in optional.items() if value is not None}

    @classmethod
    def from_record(cls, record: dict[str, Any], image: ImageArray, mask: MaskArray, part: ImageArray | None) -> Self:
        """Create a candidate from its `record` and its images."""
        window, scores = record["window"], record["scores"]
        read = {
            "window": tuple(window) if window else None,
            "scores": {name: math.nan if score is None else score for name, score in scores.items()},
        }
        return cls(**record | read, image=image, mask=mask, part=part)


def is_grey(image: ImageArray) -> bool:
    """Return whether an `(H, W, 3)` image has no colour: no pixel's channels differ by more than 2 levels."""
    return int(np.ptp(image, axis=2).max()) <= 2


def anomaly_part(image: ImageArray, mask: MaskArray) -> ImageArray:
    """Return the anomaly part `I_a = I × M_a`: the image inside the mask, mid-grey outside.

    Args:
        image: `(H, W, 3)` uint8.
        mask: `(H, W)` bool.
    """
    return np.where(mask[..., None], image, np.uint8(GREY))
