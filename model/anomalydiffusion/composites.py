"""Makes composites: crops of the user's good parts with real defects copied to them.

A few photographs show a defect on a few surfaces, and a model that fills masks on others draws there what it has seen:
brown cracks on blue asphalt. Composites show the defects on the surfaces that they will be drawn on, in their light, in
many places, and with exact masks. They look pasted, but the real crops beside them show how defects really look.

They are made of surfaces alone. A product before a backdrop is broken where its shape allows it, and what shows through
is the backdrop at that place: copied elsewhere, such defects are wrong.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np

from model.anomalydiffusion.latent_dataset import Crops, draw_crop
from model.data.copying import copy_defect
from model.data.crops import find_defects
from model.data.placement import NormalImage
from model.data.surroundings import UNLIKE, blurred
from model.data.two_levels import TwoLevels, find_two_levels
from model.data.windows import work_scale
from model.masks.objects import Objects
from model.masks.u2net import U2Net
from model.runtime.progress import Meter, Progress
from model.types import ImageArray, MaskArray, Pair
from service.core.options.anomalydiffusion import AnomalyTrainingConfig

COMPOSITE = 1_000_003
"""Seed part that keeps these draws apart from those of the real crops, which use the pair's number."""

TRIES = 6
"""How many copies are tried until one lies as the real defect does; then the best of them is taken."""

REPORT_EVERY = 20


@dataclass(frozen=True, slots=True)
class _Part:
    """A good part to copy defects to.

    Attributes:
        image, seen: `(H, W, 3)` uint8, as it is and blurred.
        levels: of the real photographs, where they have but two.
    """

    image: ImageArray
    seen: ImageArray
    levels: TwoLevels | None


def cut_composites(
    pairs: Sequence[Pair],
    types: Sequence[int],
    normals: Sequence[NormalImage],
    config: AnomalyTrainingConfig,
    object_net: U2Net | None,
) -> Generator[Progress, None, Crops]:
    """Cut `config.composite_views` crops of copies of every pair's defect; yields progress, returns them.

    Each depends on the seed, its pair's number and its own alone. Those that would lie on a product before a backdrop,
    or change nothing, are left out.

    Args:
        types: number of each pair's defect type.
        normals: good parts, at least one.
        object_net: finds products; None to take all good parts for surfaces.
    """
    objects = Objects(object_net, normals) if object_net is not None else None
    levels, views = find_two_levels(pairs), config.composite_views
    drawn = [
        np.random.default_rng([config.seed, COMPOSITE, *divmod(each, views)]) for each in range(views * len(pairs))
    ]
    chosen = [int(rng.integers(len(normals))) for rng in drawn]
    meter, done = Meter("compose", len(drawn), "composites"), 0
    crops: dict[int, tuple[ImageArray, MaskArray]] = {}
    for number in sorted(set(chosen)):
        normal = normals[number]
        is_surface = objects is None or objects.in_normal(normal.name) is None
        part = _Part(normal.image, blurred(normal.image), levels)
        for each in (each for each, own in enumerate(chosen) if own == number):
            copied = _composite(pairs[each // views], part, config.flips, drawn[each]) if is_surface else None
            if copied is not None and copied.mask.any():
                scale = work_scale(copied.mask, config.view, config.resolution)
                crops[each] = draw_crop(copied.image, copied.mask, scale, config, drawn[each])
            done += 1
            if done % REPORT_EVERY == 0 or done == len(drawn):
                yield meter.report(done)
    kept = sorted(crops)
    return Crops(
        [crops[each][0] for each in kept], [crops[each][1] for each in kept], [types[each // views] for each in kept]
    )


def _composite(pair: Pair, part: _Part, flips: tuple[bool, bool], rng: np.random.Generator) -> Pair:
    """Copy a defect to a part, where it lies as it does on its own photograph if there is such a place."""
    tried: list[tuple[float, Pair]] = []
    while len(tried) < TRIES and (not tried or tried[-1][0] > UNLIKE):
        image, mask, fault = copy_defect(pair, part.image, None, flips, rng, levels=part.levels, seen=part.seen)
        if part.levels is not None and mask.any():
            # Copper on copper is no defect, and masks of circuits hold what differs alone.
            changed = mask & (part.levels.nearest(image) != part.levels.nearest(part.image)).any(2)
            fault += 1 - float(changed.sum() / mask.sum())
            mask = np.isin(*find_defects(changed)) if changed.any() else changed
        tried.append((fault if mask.any() else math.inf, Pair(pair.name, image, mask)))
    return min(tried, key=lambda each: each[0])[1]
