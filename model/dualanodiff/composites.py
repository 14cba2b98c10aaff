"""Makes composites: training images with randomly changed real defects on the user's defect-free images.

A few photographs show a defect in a few places. Composites (see `model.data.copy_paste`) show it in many, with masks
that are exact by construction; they look pasted, but the real crops in every batch show how defects really look. Normal
images without a defect, under a prompt that names none, preserve what products look like (prior preservation, Ruiz et
al. 2023, with the user's images in place of the base's).
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from model.data.copy_paste import CopyPaste, draw_copy_paste
from model.data.crops import Window, canvas_side, draw_detail, resize_image, resize_mask
from model.data.placement import Anchor, NormalImage, draw_anchor, inner_border
from model.dualanodiff.adapter import make_references
from model.dualanodiff.bcm import background_image, product_in_window
from model.dualanodiff.latent_dataset import Crops, LatentDataset, grey_cell
from model.masks.objects import Objects, off_object_share
from model.masks.u2net import U2Net
from model.runtime.progress import Meter, Progress
from model.types import Pair, anomaly_part
from service.core.options.dualanodiff import TrainingConfig

COMPOSITE, GOOD = 1_000_003, 1_000_033
"""Seed parts that keep these draws apart from those of the pairs' crops, which use the pair's number."""

COMPOSITES_PER_GOOD = 4
"""Number of composites per crop of a defect-free image."""

TRIES = 16
"""Number of draws for a composite; the one whose defect lies on the product most is used."""

OFF_OBJECT = 0.05
"""Share of a defect that may lie off the product beyond what the real ones do; outlines are found no more exactly."""

REPORT_EVERY = 20


@dataclass(frozen=True, slots=True)
class Made:
    """Crops made from defect-free images.

    Attributes:
        composites: crops with a defect.
        good: crops without a defect; masks are empty, parts grey. None with a `prior_share` of 0.
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
    """Draw `config.composites` composites, and crops without a defect; yields progress, returns them.

    Each depends only on the seed and its number, and its window is placed as in sampling.

    Args:
        pairs: the pairs whose defects are copied.
        normals: defect-free images, at least one.
        border: least distance of a defect to sides of its window that lie inside the photograph, model pixels.
        object_net: finds products, so that defects lie on them; None to place defects anywhere.
    """
    references, placements = make_references(pairs, config)
    objects, limit = None, 0.0
    if object_net is not None:
        objects = Objects(object_net, normals)
        limit = OFF_OBJECT + off_object_share(object_net, pairs)
    meter = Meter("compose", config.composites, "composites")
    drawn: list[CopyPaste] = []
    anchors: list[Anchor] = []
    for number in range(config.composites):
        rng = np.random.default_rng([config.seed, COMPOSITE, number])
        tried: list[tuple[float, CopyPaste, Anchor]] = []
        while len(tried) < TRIES and (not tried or tried[-1][0] > limit):
            anchor = draw_anchor(normals, placements, rng, config.flips)
            pasted, seen = _composite(references[anchor.place], anchor, config, border, rng)
            tried.append((_off_object(pasted, seen, objects), pasted, seen))
        _, best, anchor = min(tried, key=lambda each: each[0])
        drawn.append(best)
        anchors.append(anchor)
        if len(drawn) % REPORT_EVERY == 0 or len(drawn) == config.composites:
            yield meter.report(len(drawn))
    good, good_anchors = [], []
    for number in range(-(-config.composites // COMPOSITES_PER_GOOD) if config.prior_share else 0):
        rng = np.random.default_rng([config.seed, GOOD, number])
        good_anchors.append(draw_anchor(normals, placements, rng, config.flips))
        good.append(resize_image(good_anchors[-1].pixels, config.resolution))
    nothing = np.zeros((config.resolution, config.resolution), np.bool_)
    composites = Crops([each.image for each in drawn], [each.mask for each in drawn], [each.part for each in drawn])
    goods = Crops(good, [nothing] * len(good), [anomaly_part(each, nothing) for each in good])
    if config.bcm and objects is not None:
        composites = _with_backgrounds(composites, anchors, objects)
        goods = _with_backgrounds(goods, good_anchors, objects)
    return Made(composites, goods)


def _composite(
    reference: Pair, anchor: Anchor, config: TrainingConfig, border: int, rng: np.random.Generator
) -> tuple[CopyPaste, Anchor]:
    """Lay a defect on a canvas as sampling would; of a canvas larger than a window, a window with detail is cut."""
    side = config.resolution
    if not config.bcm:
        side = canvas_side(reference.mask, anchor.window.side, config.view, config.resolution)
    inner = inner_border(anchor, side, border)
    pasted = draw_copy_paste(reference, resize_image(anchor.pixels, side), inner, anchor.mirrored, rng)
    if side == config.resolution:
        return pasted, anchor
    window = draw_detail(pasted.mask, config.view, config.resolution, rng)
    image = resize_image(pasted.image[window.slices], config.resolution)
    masks = [resize_mask(mask[window.slices], config.resolution) for mask in (pasted.mask, pasted.nearby)]
    scale = anchor.window.side / side
    start = (anchor.window.left + round(window.left * scale), anchor.window.top + round(window.top * scale))
    seen = replace(anchor, window=Window(*start, max(1, round(window.side * scale))))
    return CopyPaste(image, anomaly_part(image, masks[0]), masks[0], masks[1]), seen


def _with_backgrounds(crops: Crops, anchors: Sequence[Anchor], objects: Objects) -> Crops:
    """Add BCM's background images; a crop of a normal image that shows no product has a grey one."""
    backgrounds = []
    for image, mask, anchor in zip(crops.images, crops.masks, anchors, strict=True):
        product = product_in_window(objects, anchor, image.shape[0])
        backgrounds.append(background_image(image, product, mask))
    return replace(crops, backgrounds=backgrounds)


def _off_object(pasted: CopyPaste, anchor: Anchor, objects: Objects | None) -> float:
    """Return the share of the defect that lies off the product, in [0, 1]; 0 on surfaces."""
    if objects is None:
        return 0.0
    on_object = product_in_window(objects, anchor, pasted.mask.shape[0])
    return float((pasted.mask & ~on_object).sum() / pasted.mask.sum())


def mixed_dataset(dataset: LatentDataset, good: int, composites: int, config: TrainingConfig) -> LatentDataset:
    """Add prompts and batch shares to a dataset of real crops, composites and good crops, in this order.

    The last `good` crops get the second prompts, and a grey part.
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
