"""Checks the quality of generated pairs; a rejected pair gets every reason that applies.

Where possible, limits are measured on the real pairs: how large their masks are, how much of them lies
on the image border, how clearly the defects stand out, and how alike the real pairs are to one another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from model.quality.similarity import Fingerprint, bounding_box, defect_likeness, fingerprint, scene_likeness
from model.types import Candidate, ImageArray, MaskArray, Pair
from service.core.options.quality import QualityLimits


class RejectReason(StrEnum):
    """Reasons to reject a candidate."""

    EMPTY_MASK = "empty_mask"
    FULL_MASK = "full_mask"
    MASK_TOO_SMALL = "mask_too_small"
    MASK_TOO_LARGE = "mask_too_large"
    BORDER_HUGGING = "border_hugging"
    OFF_OBJECT = "off_object"
    PART_DISAGREES = "part_disagrees"
    INVISIBLE = "invisible"
    COPY_OF_REAL = "copy_of_real"
    COPY_OF_ACCEPTED = "copy_of_accepted"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of a check: accepted exactly if there are no reasons; `scores` go to the manifest."""

    accepted: bool
    reasons: tuple[RejectReason, ...]
    scores: dict[str, float]


class QualityGate:
    """Decides which candidates become part of the dataset.

    `check` changes nothing; `accept` remembers a candidate so that later near copies of it are found. Only accepted
    images, masks and windows are remembered, so a resumed job that accepts its stored pairs again gives the same
    verdicts as an uninterrupted one.

    Args:
        reals: the few-shot pairs (masks not empty), at the scale at which candidates are generated (as training sees
            them): visibility is measured in rings a few pixels wide.
        limits: the thresholds.

    Raises:
        ValueError: if there are no real pairs.
    """

    def __init__(self, reals: Sequence[Pair], limits: QualityLimits | None = None) -> None:
        if not reals:
            raise ValueError("the quality gate measures its limits on real pairs: got none, at least 1 is needed")
        self.limits = limits = limits or QualityLimits()
        areas = [float(real.mask.mean()) for real in reals]
        self._area_range = limits.min_area_ratio * min(areas), limits.max_area_ratio * max(areas)
        border = max(outline_share(real.mask, image_border(real.mask.shape)) for real in reals)
        self._max_border = max(limits.min_border_share, limits.border_ratio * border)
        visibility = min(math.hypot(*contrast(real.image, real.mask, limits.ring)) for real in reals)
        self._min_visibility = max(limits.min_visibility, limits.min_visibility_ratio * visibility)

        self._reals = [fingerprint(real.image, real.mask) for real in reals]
        self._accepted: list[Fingerprint] = []
        self._accepted_scenes: list[Fingerprint] = []
        pairs = list(combinations(self._reals, 2))
        self._defect_floor = (1 + max((defect_likeness(a, [b]) for a, b in pairs), default=0.0)) / 2
        self._scene_floor = (1 + max((scene_likeness(a, [b]) for a, b in pairs), default=0.0)) / 2

    def check(self, candidate: Candidate, object_mask: MaskArray | None = None) -> Verdict:
        """Check a candidate without changing anything.

        Args:
            candidate: the generated pair. Only its window is checked.
            object_mask: `(H, W)` bool, True = product, of the size of the candidate's image.
        """
        image, mask, part = _windowed(candidate)
        area = float(mask.mean())
        if not mask.any():
            return _verdict([RejectReason.EMPTY_MASK], {"area": area})
        if area >= self.limits.full_area:
            return _verdict([RejectReason.FULL_MASK], {"area": area})

        limits = self.limits
        outer, inner = _window_borders(candidate)
        contrasts = contrast(image, mask, limits.ring)
        scores = {
            "area": area,
            "border": outline_share(mask, outer),
            "cut": outline_share(mask, inner),
            "contrast": contrasts[0],
            "texture": contrasts[1],
        }
        if part is not None:
            scores["disagreement"] = float(np.abs(image[mask].astype(np.float32) - part[mask]).mean())
        if object_mask is not None:
            scores["off_object"] = float((candidate.mask & ~object_mask).sum() / candidate.mask.sum())
        like_real, like_accepted, likenesses = self._copies(candidate, fingerprint(image, mask))
        scores |= likenesses
        failed = {
            RejectReason.MASK_TOO_SMALL: area < self._area_range[0],
            RejectReason.MASK_TOO_LARGE: area > self._area_range[1],
            RejectReason.BORDER_HUGGING: scores["border"] > self._max_border or scores["cut"] > limits.max_cut_share,
            RejectReason.OFF_OBJECT: scores.get("off_object", 0.0) > limits.max_off_object,
            RejectReason.PART_DISAGREES: scores.get("disagreement", 0.0) > limits.max_disagreement,
            RejectReason.INVISIBLE: math.hypot(*contrasts) < self._min_visibility,
            RejectReason.COPY_OF_REAL: like_real,
            RejectReason.COPY_OF_ACCEPTED: like_accepted,
        }
        return _verdict([reason for reason, holds in failed.items() if holds], scores)

    def accept(self, candidate: Candidate) -> None:
        """Remember a candidate as part of the dataset; ignores its `part`, its mask must not be empty."""
        image, mask, _ = _windowed(candidate)
        one = fingerprint(image, mask)
        self._accepted.append(one)
        if candidate.normal is None:
            self._accepted_scenes.append(one)

    def _copies(self, candidate: Candidate, one: Fingerprint) -> tuple[bool, bool, dict[str, float]]:
        """Return whether it is a near copy of a real pair, of an accepted pair, and the measured likenesses."""
        limits = self.limits
        scores = {
            "defect_like_real": defect_likeness(one, self._reals),
            "defect_like_accepted": defect_likeness(one, self._accepted),
        }
        like_real = scores["defect_like_real"] >= self._threshold(limits.defect_copy, self._defect_floor)
        like_accepted = scores["defect_like_accepted"] >= self._threshold(limits.accepted_copy, self._defect_floor)
        # Candidates anchored on normals repeat these normals' backgrounds by design.
        if candidate.normal is None:
            scores["scene_like_real"] = scene_likeness(one, self._reals)
            scores["scene_like_accepted"] = scene_likeness(one, self._accepted_scenes)
            like_real |= scores["scene_like_real"] >= self._threshold(limits.scene_copy, self._scene_floor)
            like_accepted |= scores["scene_like_accepted"] >= self._threshold(limits.accepted_copy, self._scene_floor)
        return like_real, like_accepted, scores

    def _threshold(self, limit: float, floor: float) -> float:
        return max(limit, min(floor, self.limits.max_copy))


def contrast(image: ImageArray, mask: MaskArray, ring: int) -> tuple[float, float]:
    """Measure how a defect stands out along its outline, in grey levels: `(contrast, texture)`.

    Both compare a ring just inside with a ring just outside the mask and take the channel where they differ most.
    Contrast is the mean over the outline of the difference between the local means, so that a defect darker at one end
    and brighter at the other counts as visible; texture is the difference between the two rings' standard deviations.

    Args:
        image: `(H, W, 3)` uint8.
        mask: `(H, W)` bool.
        ring: width of the rings in pixels. One pixel outside the mask is left out: it is a mixture.
    """
    reach = ring + 1
    nearby = bounding_box(ndimage.binary_dilation(mask, iterations=reach))
    pixels, mask = image[nearby].astype(np.float32), mask[nearby]
    inside = mask & ~ndimage.binary_erosion(mask, iterations=ring, border_value=1)
    outside = ndimage.binary_dilation(mask, iterations=reach) & ~ndimage.binary_dilation(mask)
    if not inside.any() or not outside.any():
        return 0.0, 0.0
    inner_mean, inner_seen = _local_mean(pixels, inside, 2 * ring + 1)
    outer_mean, outer_seen = _local_mean(pixels, outside, 2 * ring + 1)
    outline = inside & inner_seen & outer_seen
    difference = np.abs(inner_mean - outer_mean)[outline].mean(axis=0).max() if outline.any() else 0.0
    texture = np.abs(pixels[inside].std(axis=0) - pixels[outside].std(axis=0)).max()
    return float(difference), float(texture)


def outline_share(mask: MaskArray, where: MaskArray) -> float:
    """Return the share of the mask's outermost pixels that lie in `where`; both `(H, W)` bool, mask not empty."""
    outline = mask & ~ndimage.binary_erosion(mask)
    return float((outline & where).sum() / outline.sum())


def image_border(shape: tuple[int, ...], sides: tuple[bool, bool, bool, bool] = (True, True, True, True)) -> MaskArray:
    """Return `(H, W)` bool: the outermost pixels on the chosen sides (left, top, right, bottom)."""
    border = np.zeros(shape, dtype=np.bool_)
    left, top, right, bottom = sides
    border[:, 0] |= left
    border[0] |= top
    border[:, -1] |= right
    border[-1] |= bottom
    return border


def _window_borders(candidate: Candidate) -> tuple[MaskArray, MaskArray]:
    """Return the window's border pixels on sides at the image's edge, and those on sides inside the image."""
    height, width = candidate.mask.shape
    left, top, right, bottom = candidate.window or (0, 0, width, height)
    own = (left == 0, top == 0, right == width, bottom == height)
    shape = (bottom - top, right - left)
    return image_border(shape, own), image_border(shape, (not own[0], not own[1], not own[2], not own[3]))


def _windowed(candidate: Candidate) -> tuple[ImageArray, MaskArray, ImageArray | None]:
    if candidate.window is None:
        return candidate.image, candidate.mask, candidate.part
    left, top, right, bottom = candidate.window
    box = (slice(top, bottom), slice(left, right))
    return candidate.image[box], candidate.mask[box], candidate.part[box] if candidate.part is not None else None


def _local_mean(pixels: NDArray[np.float32], where: MaskArray, size: int) -> tuple[NDArray[np.float32], MaskArray]:
    """Average `pixels` `(H, W, C)` over `size × size` neighbours in `where`; also returns where there are any."""
    weight = ndimage.uniform_filter(where.astype(np.float32), size, mode="constant")[..., None]
    total: NDArray[np.float32] = ndimage.uniform_filter(pixels * where[..., None], (size, size, 1), mode="constant")
    seen = weight > 0.5 / size**2
    mean: NDArray[np.float32] = np.divide(total, weight, out=np.zeros_like(total), where=seen)
    return mean, seen[..., 0]


def _verdict(reasons: list[RejectReason], scores: dict[str, float]) -> Verdict:
    return Verdict(not reasons, tuple(reasons), scores)
