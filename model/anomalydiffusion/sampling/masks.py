"""Chooses, for every candidate, a photograph, a defect type, and the mask to fill."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image
from scipy import ndimage

from model.anomalydiffusion.adapter import AnomalyDiffusionAdapter
from model.anomalydiffusion.config import NAME
from model.anomalydiffusion.mask_generator import MaskGenerator
from model.data.cutout import ON_PRODUCT, Changes, Cutout, changed, cut_out, draw_start, find_bounds, overlap
from model.data.drawing import draw_best, draw_in_turn
from model.data.placement import NormalImage
from model.data.places import find_place
from model.data.plan import Plan
from model.data.surroundings import UNLIKE, blurred
from model.masks.objects import Objects
from model.quality.gate import most_on_border
from model.quality.visibility import image_border, outline_share
from model.types import ImageArray, MaskArray, Pair
from service.core.options.anomalydiffusion import AnomalySamplingConfig
from service.core.options.quality import QualityLimits
from service.core.places import SMALLEST, GivenMask, Places, fitting, refuse_places

TRIES = 12
"""How many masks are tried until one can be used; then the best of them is taken."""

SEARCHED_TRIES, DRAWN_TRIES = 4, 2
"""As `TRIES`, of masks whose place is searched for, and of those that a network draws, which takes longer."""

LARGEST = 0.9
"""Greatest share of the photograph that a mask covers."""

BEND = 0.05
"""Deviation of the bending of real masks, as a share of the defect's longer side."""

KEPT = 0.5
"""Least share of a drawn mask that lies where defects may be; of what lies elsewhere it is rid."""

STRANGE = 0.2
"""What a mask's score loses for each unit of unlikeness above `UNLIKE`: less than for lying where no defect may."""

APART = 3
"""Least distance between the defects of one picture, pixels."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """What a candidate is made of.

    Attributes:
        mask: `(H, W)` bool, where the defect is wanted on the photograph; empty where no mask could be used.
        kind: number of the defect type.
        given: name of the mask, if it was given.
        outside: share of the best mask that lay where no defect may, if so much that it could not be used; otherwise 0.
    """

    normal: NormalImage
    mask: MaskArray
    kind: int
    given: str | None = None
    outside: float = 0.0


@dataclass(frozen=True, slots=True)
class MaskSource:
    """Draws masks by a request's settings.

    Attributes:
        objects: finds products in the normals; None without a network.
        places: what the user says about places.
        plan: the type and given mask of each candidate; None for a single type without given masks.
        generator: draws new masks; None to change real ones.
    """

    adapter: AnomalyDiffusionAdapter
    settings: AnomalySamplingConfig
    normals: Sequence[NormalImage]
    objects: Objects | None
    places: Places
    plan: Plan | None = None
    generator: MaskGenerator | None = None

    def draw(self, index: int, rng: np.random.Generator) -> Drawn:
        """Draw the mask of candidate `index`, or take the one that is given for it."""
        kind = 0
        if self.plan is not None:
            planned = self.plan.kind(index)
            kind = self.adapter.model.types.index(planned.defect) if planned.defect else 0
            if planned.given is not None:
                number, turn = self.plan.turn(index)
                normal = draw_in_turn(self._fitting(planned.given), turn, self.settings.seed, number)
                return Drawn(normal, planned.given.on(normal), kind, planned.given.name)
        normal = draw_in_turn(self.places.used(self.normals), index, self.settings.seed)
        seen = None if self.settings.anywhere or self.generator is not None else blurred(normal.image)
        mask, most_outside = np.zeros(normal.image.shape[:2], np.bool_), 0.0
        for _ in range(self.settings.defects_per_picture):
            defect, outside = self._draw_defect(normal, kind, mask, seen, rng)
            mask, most_outside = mask | defect, max(most_outside, outside)
        return Drawn(normal, mask, kind, outside=0.0 if mask.any() else most_outside)

    def _fitting(self, given: GivenMask) -> list[NormalImage]:
        """Return the photographs that a mask can be filled on, where it keeps to the places that are allowed."""
        fit = self.places.used(fitting(given, self.normals))
        return [normal for normal in fit if (where := self._wanted(normal)) is None or where[given.on(normal)].all()]

    def _draw_defect(
        self, normal: NormalImage, kind: int, taken: MaskArray, seen: ImageArray | None, rng: np.random.Generator
    ) -> tuple[MaskArray, float]:
        """Draw one defect's mask on a photograph, empty where none could be used.

        Args:
            taken: `(H, W)` bool, where other defects lie, which it does not touch.
            seen: the photograph, blurred, to look for surroundings like the real ones; None not to.

        Returns:
            Also the share of the best one that lay outside the wanted region, if that is why; otherwise 0.
        """
        wanted = self._wanted(normal)
        product = self._product(normal)
        free = ~ndimage.binary_dilation(taken, iterations=APART) if taken.any() else None
        parts = wanted, product, free

        def score(mask: MaskArray) -> float:
            hugs = self.generator is not None and self._hugs_border(mask, kind)
            return 0.0 if hugs else usable(mask, *parts)

        def draw_one() -> tuple[float, MaskArray]:
            cutout = (
                self._changed_real(normal, kind, seen, rng)
                if self.generator is None
                else self._learned(self.generator, normal, kind, rng)
            )
            if cutout is None:
                return 0.0, np.zeros_like(taken)
            mask, unlikeness = self._laid(cutout, normal, parts, seen, rng)
            return score(mask) - STRANGE * max(unlikeness - UNLIKE, 0), mask

        tries = DRAWN_TRIES if self.generator is not None else TRIES if seen is None else SEARCHED_TRIES
        mask = draw_best(draw_one, ON_PRODUCT, tries)
        if score(mask) < KEPT:
            outside = 0.0 if wanted is None or not mask.any() else 1 - float(wanted[mask].mean())
            return np.zeros_like(mask), outside if outside > 1 - KEPT else 0.0
        return np.logical_and.reduce([mask, *(part for part in (wanted, free) if part is not None)]), 0.0

    def _changed_real(
        self, normal: NormalImage, kind: int, seen: ImageArray | None, rng: np.random.Generator
    ) -> Cutout:
        """Mirror, turn, scale and bend a real mask of a defect type.

        Args:
            seen: as for `_draw_defect`.
        """
        own = [number for number, real in enumerate(self.adapter.masks) if real.kind == kind]
        chosen = own[int(rng.integers(len(own)))]
        flips, mirror = self.adapter.model.config.flips, rng.random(2) < 0.5
        mirrored = (flips[0] and bool(mirror[0]), flips[1] and bool(mirror[1]))
        angles = np.deg2rad(self.settings.angles)
        changes = Changes(self.settings.sizes, (float(angles[0]), float(angles[1])), BEND, whole_lines=True)
        mask, unknown = self.adapter.masks[chosen].mask, None
        image = np.zeros((*mask.shape, 3), np.uint8)
        if seen is not None:
            image, unknown = self.adapter.photograph(chosen)
        real = Pair("", image, mask)
        return changed(cut_out(real, mirrored, rng, unknown), normal.image.shape, rng, changes)

    def _learned(
        self, generator: MaskGenerator, normal: NormalImage, kind: int, rng: np.random.Generator
    ) -> Cutout | None:
        """Draw a new mask of a defect type, and scale it; None if nothing was drawn."""
        mask = spread(generator.draw(kind, int(rng.integers(2**62))), normal.image.shape, rng)
        if not mask.any():
            return None
        drawn = Pair("", np.zeros((*mask.shape, 3), np.uint8), mask)
        changes = Changes(self.settings.sizes, (0.0, 0.0), whole_lines=True)
        return changed(cut_out(drawn, (False, False), rng), normal.image.shape, rng, changes)

    def _hugs_border(self, mask: MaskArray, kind: int) -> bool:
        """Return whether more of a mask lies on its photograph's border than the usual limits of the checks allow."""
        reals = [real.mask for real in self.adapter.references_of(self.adapter.model.types[kind])]
        border = image_border(mask.shape)
        return bool(mask.any()) and outline_share(mask, border) > most_on_border(reals, QualityLimits())

    def _laid(
        self,
        cutout: Cutout,
        normal: NormalImage,
        parts: tuple[MaskArray | None, MaskArray | None, MaskArray | None],
        seen: ImageArray | None,
        rng: np.random.Generator,
    ) -> tuple[MaskArray, float]:
        """Move a mask to where it may lie on a photograph, `(H, W)` bool.

        Args:
            parts: `(H, W)` bool, where the user wants it, the product, and what is free; None for everywhere.
            seen: as for `_draw_defect`.

        Returns:
            Also how unlike the surroundings are, see `model.data.surroundings`.
        """
        wanted, product, _ = parts
        if wanted is not None:  # what was cut off by its photograph's border need not be at one here
            cutout = replace(cutout, touches=np.zeros_like(cutout.touches))
        limits = [part for part in parts if part is not None]
        allowed = np.logical_and.reduce(limits) if limits else None
        within = box_of(wanted) if wanted is not None else None
        if within is None and self.settings.anywhere:
            within = (1, 1, normal.image.shape[0] - 1, normal.image.shape[1] - 1)
        bounds = find_bounds(cutout, normal.image.shape, within, nearby=wanted is None and product is None)
        start = draw_start(cutout, normal.image.shape, bounds, allowed, rng)
        unlikeness = 0.0
        if seen is not None:
            anywhere = find_bounds(cutout, normal.image.shape, within)
            start, unlikeness = find_place(cutout, start, seen, None, anywhere, allowed, rng)
        here, there = overlap(cutout.mask.shape, normal.image.shape, start)
        laid = np.zeros(normal.image.shape[:2], np.bool_)
        laid[there] = cutout.mask[here]
        return laid, unlikeness

    def _wanted(self, normal: NormalImage) -> MaskArray | None:
        """Return where defects may lie at all on a photograph; None for everywhere."""
        return self.places.where(normal, self.settings.region)

    def _product(self, normal: NormalImage) -> MaskArray | None:
        """Return the product on a photograph; None for everywhere, also where only what lies beside it is allowed."""
        if self.objects is None or not self.settings.on_object:
            return None
        product = self.objects.in_normal(normal.name)
        if product is None or not self.places.allowed:
            return product
        allowed = self.places.where(normal)
        return product if allowed is None or (product & allowed).any() else None

    def check(self) -> None:
        """Find what the user asks for and cannot get.

        Raises:
            UsageError: given masks fit no photograph, there is no place for a defect, or options are about masks that
                are chosen while masks are given.
        """
        refuse_places(self.places, NAME, self.settings.as_dict())
        self.places.check(self.normals, self.adapter.model.types, self.settings.region)


def usable(mask: MaskArray, *parts: MaskArray | None) -> float:
    """Score a mask in [0, 1]: the share that lies where it may; 0 for one that is empty or full.

    Args:
        parts: `(H, W)` bool, where it may lie, all of which hold; None for everywhere.
    """
    area = int(mask.sum())
    if area < SMALLEST or area > LARGEST * mask.size:
        return 0.0
    return min((float(part[mask].mean()) for part in parts if part is not None), default=1.0)


def spread(mask: MaskArray, shape: tuple[int, ...], rng: np.random.Generator) -> MaskArray:
    """Enlarge a square mask to the largest square of a photograph, at a random place along its longer side."""
    side = min(shape[:2])
    square = Image.fromarray(mask).resize((side, side), Image.Resampling.NEAREST)
    top, left = (int(rng.integers(length - side + 1)) for length in shape[:2])
    found = np.zeros(shape[:2], np.bool_)
    found[top : top + side, left : left + side] = np.asarray(square)
    return found


def box_of(region: MaskArray) -> tuple[int, int, int, int]:
    """Return top, left, bottom and right of a region that is not empty."""
    places = np.argwhere(region)
    (top, left), (bottom, right) = places.min(0).tolist(), (places.max(0) + 1).tolist()
    return top, left, bottom, right
