"""Makes composites: crops of the user's good parts with real defects copied to them.

A few photographs show a defect on a few surfaces, and a model that fills masks on others draws there what it has seen:
brown cracks on blue asphalt. Composites show the defects on the surfaces that they will be drawn on, in their light, in
many places, and with exact masks. They look pasted, but the real crops beside them show how defects really look.

They are made of surfaces alone. A product before a backdrop breaks where its shape allows it, and what shows through is
the backdrop at that place; what cuts a conductor of a circuit must meet one. Copied elsewhere, such defects are wrong.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

import numpy as np

from model.anomalydiffusion.latent_dataset import Crops, draw_crop
from model.data.copying import copy_defect
from model.data.placement import NormalImage
from model.data.surroundings import UNLIKE, blurred
from model.data.two_levels import find_two_levels
from model.data.windows import work_scale
from model.masks.objects import Objects
from model.masks.u2net import U2Net
from model.runtime.progress import Meter, Progress
from model.types import ImageArray, MaskArray, Pair
from service.core.options.anomalydiffusion import AnomalyTrainingConfig

COMPOSITE = 1_000_003
"""Seed part that keeps these draws apart from those of the real crops, which use the pair's number."""

TRIES = 4
"""How many copies are tried until one lies in surroundings like the real defect's."""


def cut_composites(
    pairs: Sequence[Pair],
    types: Sequence[int],
    normals: Sequence[NormalImage],
    config: AnomalyTrainingConfig,
    object_net: U2Net | None,
) -> Generator[Progress, None, Crops]:
    """Cut `config.composite_views` crops of copies of every pair's defect; yields progress, returns them.

    Each depends on the seed, its pair's number and its own alone. Those that would lie on a product before a backdrop,
    or in surroundings unlike the real defect's, are left out. There are none where most good parts show such a product,
    and of pictures of two levels, such as scans of circuits.

    Args:
        types: number of each pair's defect type.
        normals: good parts, at least one.
        object_net: finds products; None to take all good parts for surfaces.
    """
    if find_two_levels(pairs) is not None:
        return Crops([], [], [])
    objects = Objects(object_net, normals) if object_net is not None else None
    views = config.composite_views
    drawn = [
        np.random.default_rng([config.seed, COMPOSITE, *divmod(each, views)]) for each in range(views * len(pairs))
    ]
    chosen = [int(rng.integers(len(normals))) for rng in drawn]
    used = sorted(set(chosen))
    surfaces = [each for each in used if objects is None or objects.in_normal(normals[each].name) is None]
    if len(surfaces) < len(used) / 2:
        return Crops([], [], [])
    wanted = [[each for each, own in enumerate(chosen) if own == number] for number in surfaces]
    meter, done = Meter("compose", sum(map(len, wanted)), "composites"), 0
    crops: dict[int, tuple[ImageArray, MaskArray]] = {}
    for number, here in zip(surfaces, wanted, strict=True):
        picture = normals[number].image
        seen = blurred(picture)
        for each in here:
            copied = _composite(pairs[each // views], picture, seen, config.flips, drawn[each])
            if copied is not None:
                scale = work_scale(copied.mask, config.view, config.resolution)
                crops[each] = draw_crop(copied.image, copied.mask, scale, config, drawn[each])
        done += len(here)
        yield meter.report(done)
    kept = sorted(crops)
    return Crops(
        [crops[each][0] for each in kept], [crops[each][1] for each in kept], [types[each // views] for each in kept]
    )


def _composite(
    pair: Pair, picture: ImageArray, seen: ImageArray, flips: tuple[bool, bool], rng: np.random.Generator
) -> Pair | None:
    """Copy a defect to a picture; None where no place was found that is like the real one's.

    Args:
        picture, seen: `(H, W, 3)` uint8, as it is and blurred.
    """
    for _ in range(TRIES):
        image, mask, unlikeness = copy_defect(pair, picture, None, flips, rng, seen=seen)
        if mask.any() and unlikeness <= UNLIKE:
            return Pair(pair.name, image, mask)
    return None
