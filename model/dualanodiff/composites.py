"""Pictures to learn from beside the few real ones: their defects, changed at random, on the user's own good parts.

A handful of photographs shows a defect in a handful of places. Laid on good parts (see `model.data.copy_paste`) it is
seen on many, with a mask that is exact by construction, though it only looks pasted; the real crops in every batch say
how it really looks. Good parts without a defect, under a prompt that names none, keep what parts look like (prior
preservation, Ruiz et al. 2023, with the user's pictures in place of the base's).
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from model.data.copy_paste import CopyPaste, draw_copy_paste
from model.data.crops import resize_image, resize_share
from model.data.placement import Anchor, NormalImage, draw_anchor, inner_border
from model.dualanodiff.adapter import make_references
from model.dualanodiff.latent_dataset import Crops, LatentDataset, grey_cell
from model.masks.objects import Objects
from model.masks.u2net import U2Net
from model.runtime.progress import Meter, Progress
from model.types import Pair, anomaly_part
from service.core.options.dualanodiff import TrainingConfig
from service.core.options.quality import QualityLimits

COMPOSITE, GOOD = 1_000_003, 1_000_033
"""Tell these draws from those of the pairs' crops, which have the pair's number in that place."""

COMPOSITES_PER_GOOD = 4
"""There are this many times as many composites as crops of good parts alone."""

TRIES = 8
"""Draws for a composite whose defect is to lie on the product; of these the one that lies off it least."""

REPORT_EVERY = 20


@dataclass(frozen=True, slots=True)
class Made:
    """What was made of good parts.

    Attributes:
        composites: defects on good parts.
        good: good parts alone; masks are empty, parts grey. None with a `prior_share` of 0.
    """

    composites: Crops
    good: Crops


def make_composites(
    pairs: Sequence[Pair],
    normals: Sequence[NormalImage],
    config: TrainingConfig,
    border: int,
    object_net: U2Net | None,
) -> Generator[Progress, None, Made]:
    """Draw `config.composites` composites, and good parts alone; yields progress, returns them.

    Each is drawn from the seed and its number alone, on a window placed as in sampling.

    Args:
        pairs: whose defects are laid on the good parts.
        normals: photographs of good parts, at least one.
        border: no defect is laid so close to sides of its window that lie inside the photograph, model pixels.
        object_net: finds products, for defects to lie on; None to lay them anywhere.
    """
    references, placements = make_references(pairs, config)
    objects = Objects(object_net, normals) if object_net is not None else None
    meter = Meter("compose", config.composites, "composites")
    drawn: list[CopyPaste] = []
    for number in range(config.composites):
        rng = np.random.default_rng([config.seed, COMPOSITE, number])
        tried: list[tuple[float, CopyPaste]] = []
        while len(tried) < TRIES and (not tried or tried[-1][0] > QualityLimits().max_off_object):
            anchor = draw_anchor(normals, placements, rng, config.flips)
            inner = inner_border(anchor, config.resolution, border)
            window = resize_image(anchor.pixels, config.resolution)
            sketch = draw_copy_paste(references[anchor.place], window, inner, anchor.mirrored, rng)
            tried.append((_off_object(sketch, anchor, objects), sketch))
        drawn.append(min(tried, key=lambda each: each[0])[1])
        if len(drawn) % REPORT_EVERY == 0 or len(drawn) == config.composites:
            yield meter.report(len(drawn))
    good = []
    for number in range(-(-config.composites // COMPOSITES_PER_GOOD) if config.prior_share else 0):
        rng = np.random.default_rng([config.seed, GOOD, number])
        good.append(resize_image(draw_anchor(normals, placements, rng, config.flips).pixels, config.resolution))
    nothing = np.zeros((config.resolution, config.resolution), np.bool_)
    return Made(
        Crops([each.image for each in drawn], [each.mask for each in drawn], [each.part for each in drawn]),
        Crops(good, [nothing] * len(good), [anomaly_part(each, nothing) for each in good]),
    )


def _off_object(sketch: CopyPaste, anchor: Anchor, objects: Objects | None) -> float:
    """Share of the defect that does not lie on the product, in [0, 1]; 0 on surfaces."""
    found = objects.in_normal(anchor.normal.name) if objects is not None else None
    if found is None:
        return 0.0
    on_object = resize_share(found[anchor.window.slices], sketch.mask.shape[0]) >= 0.5
    return float((sketch.mask & ~on_object).sum() / sketch.mask.sum())


def mixed_dataset(dataset: LatentDataset, good: int, composites: int, config: TrainingConfig) -> LatentDataset:
    """A dataset of real crops, composites and good parts, in this order, made ready to be drawn from.

    The last `good` crops are learned under the second prompts, with a grey part.
    """
    real = dataset.latents.shape[1] - composites - good
    latents = dataset.latents.clone()
    latents[1, real + composites :] = grey_cell(latents[1, :real])
    prompts = torch.zeros(len(dataset.masks), dtype=torch.long, device=dataset.masks.device)
    prompts[real + composites :] = 1
    kinds = [(real, config.real_share), (composites, 1 - config.real_share - config.prior_share)]
    if good:
        kinds.append((good, config.prior_share))
    return replace(dataset, latents=latents, prompts=prompts, kinds=tuple(kinds))
