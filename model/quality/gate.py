"""Checks the quality of generated pairs; a rejected pair gets every reason that applies.

Where possible, limits are measured on the real pairs: how large their masks are and how wide their strokes, how much of
them lies on the image border, how clearly the defects stand out, how alike and how unlike one another they are, and,
laid on the good parts, how much of their masks changes these.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations

import numpy as np

from model.data.placement import NormalImage
from model.quality.change import Change, measure_change
from model.quality.copies import Defect, KnownDefects, find_defect, usual_likeness
from model.quality.laid import UsualChange
from model.quality.realism import Realism
from model.quality.similarity import Fingerprint, fingerprint, scene_likeness
from model.quality.stroke import stroke_width, usual_widths
from model.quality.visibility import DARK, contrast, image_border, outline_share
from model.types import GREY, Candidate, ImageArray, MaskArray, Pair
from service.core.options.quality import QualityLimits


class RejectReason(StrEnum):
    """Reasons to reject a candidate."""

    EMPTY_MASK = "empty_mask"
    FULL_MASK = "full_mask"
    MASK_TOO_SMALL = "mask_too_small"
    MASK_TOO_LARGE = "mask_too_large"
    MASK_TOO_THIN = "mask_too_thin"
    MASK_TOO_WIDE = "mask_too_wide"
    BORDER_HUGGING = "border_hugging"
    OFF_OBJECT = "off_object"
    OUTSIDE_REGION = "outside_region"
    PART_DISAGREES = "part_disagrees"
    INVISIBLE = "invisible"
    MASK_DIFFERS_FROM_CHANGE = "mask_differs_from_change"
    UNLIKE_REAL = "unlike_real"
    COPY_OF_REAL = "copy_of_real"
    COPY_OF_ACCEPTED = "copy_of_accepted"


UNUSABLE = {RejectReason.EMPTY_MASK, RejectReason.FULL_MASK, RejectReason.OUTSIDE_REGION}
"""Reasons that hold even where nothing else is rejected."""

SMALLEST = 1e-6
"""Limits of 0 are counted as this where something is divided by them."""

LOOSE = 1.4
"""Greatest sum of change outside the mask and of ledge, both as multiples of their limits: a mask that nearly misses
both is too small."""

FEW = 0.8
"""Share of the outline that is added to the real masks' greatest contact with the image border, divided by one more
than their number: few of them hardly show how far it goes."""

MOST_OUTSIDE = 0.1
"""Greatest share of a defect, as it was drawn, outside the region where the user wants it; that much is cut off."""

OFF_OBJECT_RATIO = 1.1
"""Greatest share of a mask off the object, as a multiple of the real masks' greatest."""


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
        normals: the good parts that candidates are generated on; candidates on others are not compared with theirs.
        real_objects: the product in each real pair's image, None where there is none, if products are looked for in
            the candidates' images.
        judges_shape: whether a mask must be shaped like the real ones: not where the user gives the masks.

    Raises:
        ValueError: if there are no real pairs.
    """

    def __init__(
        self,
        reals: Sequence[Pair],
        limits: QualityLimits | None = None,
        *,
        normals: Sequence[NormalImage] = (),
        real_objects: Sequence[MaskArray | None] = (),
        judges_shape: bool = True,
    ) -> None:
        if not reals:
            raise ValueError("the quality gate measures its limits on real pairs: got none, at least 1 is needed")
        self.limits = limits = limits or QualityLimits()
        areas = [float(real.mask.mean()) for real in reals]
        self._area_range = limits.min_area_ratio * min(areas), limits.max_area_ratio * max(areas)
        self._widths = usual_widths([real.mask for real in reals])
        self._max_border = most_on_border([real.mask for real in reals], limits)
        visible = [math.hypot(*contrast(real.image, real.mask, limits.ring)) for real in reals]
        shares = [_lit(real.image, real.mask, levels) for real, levels in zip(reals, visible, strict=True)]
        self._min_visible_share = limits.min_visibility_ratio * min(shares)
        self._usual_visibility = max(float(np.median(visible)), limits.min_visibility, 1.0)
        off_object = [
            _share_outside(real.mask, found)
            for real, found in zip(reals, real_objects, strict=False)
            if found is not None
        ]
        self._max_off_object = max(limits.max_off_object, OFF_OBJECT_RATIO * max(off_object, default=0.0))

        self._normals = {normal.name: normal.image for normal in normals}
        self._usual_change = UsualChange.measured(reals, normals)
        self._realism = Realism(reals, judges_shape=judges_shape)
        self._max_unlikeness = max(limits.max_unlikeness, self._realism.usual)

        self._real_scenes = [fingerprint(real.image, real.mask) for real in reals]
        self._accepted_scenes: list[Fingerprint] = []
        scene = max((scene_likeness(a, [b]) for a, b in combinations(self._real_scenes, 2)), default=0.0)
        self._scene_floor = (1 + scene) / 2
        self._real_defects, self._accepted_defects = KnownDefects(), KnownDefects()
        defects = [find_defect(real.image, real.mask) for real in reals]
        self._defect_copy = self._threshold(limits.defect_copy, (1 + usual_likeness(defects)) / 2)
        for defect in defects:
            self._real_defects.add(defect)

    def check(self, candidate: Candidate, object_mask: MaskArray | None = None) -> Verdict:
        """Check a candidate without changing anything.

        Args:
            candidate: the generated pair. Only its window is checked.
            object_mask: `(H, W)` bool, True = product, of the size of the candidate's image.
        """
        image, mask, part = _windowed(candidate)
        area = float(mask.mean())
        outside = candidate.scores.get("outside_region", 0.0) > MOST_OUTSIDE
        if not mask.any():
            empty = RejectReason.OUTSIDE_REGION if outside else RejectReason.EMPTY_MASK
            return self._verdict([empty], {"area": area, "score": 0.0})
        if area >= self.limits.full_area:
            return self._verdict([RejectReason.FULL_MASK], {"area": area, "score": 0.0})

        limits = self.limits
        outer, inner = _window_borders(candidate)
        contrasts = contrast(image, mask, limits.ring)
        scores = {
            "area": area,
            "width": stroke_width(mask),
            "border": outline_share(mask, outer),
            "cut": outline_share(mask, inner),
            "contrast": contrasts[0],
            "texture": contrasts[1],
            "unlikeness": self._realism.unlikeness(image, mask),
        }
        if part is not None:
            scores["disagreement"] = _disagreement(image, part, mask)
        if object_mask is not None:
            scores["off_object"] = _share_outside(candidate.mask, object_mask)
        change = self._change(candidate)
        if change is not None:
            scores |= change.as_scores()
        like_real, like_accepted, likenesses = self._copies(candidate, find_defect(image, mask))
        scores |= likenesses
        visibility = math.hypot(*contrasts)
        faint = change is not None and change.strength < limits.min_visibility_ratio * self._usual_change.strength
        max_off_object = self._max_off_object if candidate.normal is None else limits.max_off_object
        failed = {
            RejectReason.MASK_TOO_SMALL: area < self._area_range[0],
            RejectReason.MASK_TOO_LARGE: area > self._area_range[1],
            RejectReason.MASK_TOO_THIN: scores["width"] < limits.min_width_ratio * self._widths[0],
            RejectReason.MASK_TOO_WIDE: scores["width"] > limits.max_width_ratio * self._widths[1],
            RejectReason.BORDER_HUGGING: scores["border"] > self._max_border or scores["cut"] > limits.max_cut_share,
            RejectReason.OFF_OBJECT: scores.get("off_object", 0.0) > max_off_object,
            RejectReason.OUTSIDE_REGION: outside,
            RejectReason.PART_DISAGREES: scores.get("disagreement", 0.0) > limits.max_disagreement,
            RejectReason.INVISIBLE: faint or self._invisible(image, mask, visibility),
            RejectReason.MASK_DIFFERS_FROM_CHANGE: change is not None and self._differs(change),
            RejectReason.UNLIKE_REAL: scores["unlikeness"] > self._max_unlikeness,
            RejectReason.COPY_OF_REAL: like_real,
            RejectReason.COPY_OF_ACCEPTED: like_accepted,
        }
        scores["score"] = self._score(scores, visibility, change)
        return self._verdict([reason for reason, holds in failed.items() if holds], scores)

    def accept(self, candidate: Candidate) -> None:
        """Remember a candidate as part of the dataset; ignores its `part`, its mask must not be empty."""
        image, mask, _ = _windowed(candidate)
        self._accepted_defects.add(find_defect(image, mask))
        if candidate.normal is None:
            self._accepted_scenes.append(fingerprint(image, mask))

    def _change(self, candidate: Candidate) -> Change | None:
        """Compare a candidate with the good part that it was generated on, if that is known."""
        good = self._normals.get(candidate.normal) if candidate.normal is not None else None
        return measure_change(candidate.image, good, candidate.mask) if good is not None else None

    def _invisible(self, image: ImageArray, mask: MaskArray, visibility: float) -> bool:
        return visibility < self.limits.min_visibility or _lit(image, mask, visibility) < self._min_visible_share

    def _differs(self, change: Change) -> bool:
        limits, usual = self.limits, self._usual_change
        outside = (1 - change.precision) / max(1 - limits.min_change_inside, SMALLEST)
        return (
            change.recall < limits.min_change_ratio * usual.recall
            or change.outline < limits.min_change_ratio * usual.outline
            or change.precision < limits.min_change_inside
            or change.ledge > limits.max_ledge
            or outside + change.ledge / max(limits.max_ledge, SMALLEST) > LOOSE
        )

    def _copies(self, candidate: Candidate, defect: Defect) -> tuple[bool, bool, dict[str, float]]:
        """Return whether it is a near copy of a real pair, of an accepted pair, and the measured likenesses."""
        limits = self.limits
        scores = {
            "defect_like_real": self._real_defects.likeness(defect),
            "defect_like_accepted": self._accepted_defects.likeness(defect),
        }
        like_real, like_accepted = (likeness >= self._defect_copy for likeness in scores.values())
        # Candidates anchored on normals repeat these normals' backgrounds by design.
        if candidate.normal is None:
            image, mask, _ = _windowed(candidate)
            scene = fingerprint(image, mask)
            scores["scene_like_real"] = scene_likeness(scene, self._real_scenes)
            scores["scene_like_accepted"] = scene_likeness(scene, self._accepted_scenes)
            like_real |= scores["scene_like_real"] >= self._threshold(limits.scene_copy, self._scene_floor)
            like_accepted |= scores["scene_like_accepted"] >= self._threshold(limits.accepted_copy, self._scene_floor)
        return like_real, like_accepted, scores

    def _threshold(self, limit: float, floor: float) -> float:
        return max(limit, min(floor, self.limits.max_copy))

    def _score(self, scores: dict[str, float], visibility: float, change: Change | None) -> float:
        """Return the geometric mean of what speaks for a pair, each in [0, 1], where 1 is as good as the real ones."""
        likeness = max(scores["defect_like_real"], scores["defect_like_accepted"])
        merits = [
            # Half at the limit.
            2.0 ** -((scores["unlikeness"] / max(self._max_unlikeness, SMALLEST)) ** 2),
            min(1.0, visibility / self._usual_visibility),
            1 - min(1.0, likeness) ** 4,
        ]
        if "disagreement" in scores:
            merits.append(2.0 ** -(scores["disagreement"] / max(self.limits.max_disagreement, 1.0)))
        if change is not None:
            usual = self._usual_change
            merits += [
                min(1.0, change.recall / max(usual.recall, SMALLEST)),
                min(1.0, change.outline / max(usual.outline, SMALLEST)),
                change.precision,
                1 / (1 + change.ledge),
            ]
        return float(np.prod(merits) ** (1 / len(merits)))

    def _verdict(self, reasons: list[RejectReason], scores: dict[str, float]) -> Verdict:
        kept = tuple(reason for reason in reasons if self.limits.reject or reason in UNUSABLE)
        return Verdict(not kept, kept, scores)


def most_on_border(masks: Sequence[MaskArray], limits: QualityLimits) -> float:
    """Return the greatest share of an outline on the image border that passes, measured on the real masks."""
    border = max(outline_share(mask, image_border(mask.shape)) for mask in masks)
    return max(limits.min_border_share, limits.border_ratio * (border + FEW / (len(masks) + 1)))


def _lit(image: ImageArray, mask: MaskArray, visibility: float) -> float:
    """Return visibility in grey levels as a share of the brightness around the mask."""
    around = image if mask.all() else image[~mask]
    return visibility / (float(around.mean()) + DARK)


def _share_outside(mask: MaskArray, found: MaskArray) -> float:
    return float((mask & ~found).sum() / mask.sum())


def _disagreement(image: ImageArray, part: ImageArray, mask: MaskArray) -> float:
    """Return the mean difference of image and part in the mask, grey levels, where the part is not blank."""
    shown = mask & (part != GREY).any(axis=2)
    compared = shown if shown.any() else mask
    return float(np.abs(image[compared].astype(np.float32) - part[compared]).mean())


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
