"""From a generated anomaly part to the defect's mask: three methods, and the tidy-up that follows each.

The part is the defect on mid-grey. A segmentation network finds it (the paper's choice), or the distance from grey
does, or the anomaly branch's attention, averaged over layers and steps, which shows where that branch drew something.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from model.checkpoint import step_generator
from model.pixels import to_pixels
from model.progress import Meter, Progress
from model.types import GREY, ImageArray, MaskArray
from model.u2net import U2Net, normalise, saliency
from service.core.errors import UsageError

NEIGHBOURS = np.ones((3, 3), dtype=bool)
"""Diagonal neighbours touch."""

FAINTEST, LOUDEST = 8.0, 24.0
"""Grey levels: a distance below the first is never a defect, one above the second always may be."""


class MaskMethod(StrEnum):
    """How the mask is found."""

    U2NET = "u2net"
    ATTENTION = "attention"
    THRESHOLD = "threshold"


def u2net_masks(net: U2Net, parts: Sequence[ImageArray]) -> list[MaskArray]:
    """The defects as the network sees them, at probability 1/2, in one pass.

    Args:
        net: in evaluation mode.
        parts: `(H, W, 3)` uint8 each, on mid-grey, all of one size.

    Returns:
        `(H, W)` bool each.
    """
    device = next(net.parameters()).device
    probabilities = saliency(net, to_pixels(parts).to(device))[:, 0]
    return list((probabilities > 0.5).cpu().numpy())


def u2net_mask(net: U2Net, part: ImageArray) -> MaskArray:
    """As `u2net_masks`, of one part."""
    return u2net_masks(net, [part])[0]


def threshold_mask(part: ImageArray) -> MaskArray:
    """The defect as what differs from mid-grey; nothing to train and nothing to set.

    The distance is the root mean square over channels after a light blur. Pixels beyond Otsu's threshold are seeds;
    what touches a seed and is beyond half of it joins. Neither falls below 3.5 times the median distance (for a part
    that is mostly background: above all of its noise), so a noisy part without a defect gives an empty mask.

    Args:
        part: `(H, W, 3)` uint8 on mid-grey.

    Returns:
        `(H, W)` bool.
    """
    signed = ndimage.gaussian_filter(part.astype(np.float32) - GREY, sigma=(0.5, 0.5, 0))
    distance = np.sqrt(np.square(signed).mean(axis=2))
    floor = float(np.clip(3.5 * np.median(distance), FAINTEST, LOUDEST))
    threshold = otsu(distance)
    seeds = distance > max(threshold, floor)
    return ndimage.binary_propagation(seeds, structure=NEIGHBOURS, mask=distance > max(threshold / 2, floor))


def attention_mask(attention: NDArray[np.floating], shape: tuple[int, int]) -> MaskArray:
    """The defect as what the anomaly branch attends to.

    Args:
        attention: `(h, w)`, averaged over layers, heads and steps; any scale.
        shape: `(H, W)` of the image.

    Returns:
        `(H, W)` bool: above Otsu's threshold; empty if the map is flat.
    """
    height, width = shape
    enlarged = np.asarray(
        Image.fromarray(attention.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR)
    )
    return enlarged > otsu(enlarged)


def otsu(values: NDArray[np.floating], bins: int = 256) -> float:
    """The threshold that best separates the values into two classes (Otsu 1979); their maximum if all are equal.

    Args:
        values: any shape, finite.
    """
    low, high = float(values.min()), float(values.max())
    if low == high:
        return high
    counts, edges = np.histogram(values, bins, (low, high))
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1]
    above = values.size - below
    sum_below = np.cumsum(counts * centres)[:-1]
    sum_above = (counts * centres).sum() - sum_below
    between = below * above * (sum_below / below - sum_above / above) ** 2
    # Wherever no value lies between the classes the criterion is level: the middle of that stretch is the threshold.
    best = np.flatnonzero(between >= between.max() * (1 - 1e-9))
    return float(edges[1 + best].mean())


def tidy_mask(mask: MaskArray, *, speck: float = 0.05) -> MaskArray:
    """Close narrow gaps, fill holes, remove specks.

    A hole larger than the whole mask stays: it is what a ring-shaped scratch surrounds.

    Args:
        mask: `(H, W)` bool.
        speck: components smaller than this share of the largest are removed.
    """
    if not mask.any():
        return mask
    radius = max(1, round(min(mask.shape) / 256))
    # Padded, because closing erodes from the border as if nothing were beyond it.
    padded = np.pad(mask, radius, mode="edge")
    closed = ndimage.binary_closing(padded, ndimage.generate_binary_structure(2, 1), iterations=radius)
    tidy: MaskArray = closed[radius:-radius, radius:-radius] | mask

    holes, count = ndimage.label(ndimage.binary_fill_holes(tidy) & ~tidy)
    sizes = np.bincount(holes.ravel(), minlength=count + 1)
    tidy = tidy | ((sizes <= tidy.sum())[holes] & (holes > 0))

    components, _ = ndimage.label(tidy, NEIGHBOURS)
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    kept: MaskArray = (sizes >= max(1.0, speck * sizes.max()))[components]
    return kept


def iou(first: MaskArray, second: MaskArray) -> float:
    """Intersection over union of two `(H, W)` masks, in [0, 1]; 1 if both are empty."""
    union = int((first | second).sum())
    return int((first & second).sum()) / union if union else 1.0


def adapt_u2net(
    net: U2Net,
    parts: Sequence[ImageArray],
    masks: Sequence[MaskArray],
    *,
    seed: int,
    steps: int = 60,
    batch: int = 4,
    lr: float = 1e-3,
) -> Iterator[Progress]:
    """Fine-tune the mask network on the user's own pairs, in place; the same seed gives the same weights.

    Batch-norm statistics stay those of the pretrained weights: a handful of pairs cannot estimate them.

    Args:
        net: in evaluation mode, and left so; on any device.
        parts: `(H, W, 3)` uint8 each, on mid-grey, all of one size.
        masks: the `(H, W)` bool masks of these parts, in the same order.
        seed: of every draw.
        steps: batches in all.
        batch: parts per step, drawn with replacement.
        lr: peak learning rate; it falls to 0 along a cosine.

    Raises:
        UsageError: no parts, numbers or sizes that differ.
    """
    shapes = sorted({part.shape[:2] for part in parts} | {mask.shape for mask in masks})
    if not parts or len(parts) != len(masks) or len(shapes) > 1:
        raise UsageError(
            f"{len(parts)} parts and {len(masks)} masks of the sizes {shapes} were given; "
            "at least one pair is needed, as many masks as parts, all of one size",
            "adapting the mask network",
        )
    pixels, targets = to_pixels(parts), torch.from_numpy(np.stack(masks)).float()[:, None]
    if side := net.preprocessing.input_size:
        pixels = functional.interpolate(pixels, size=(side, side), mode="bilinear", antialias=True).clamp(-1, 1)
        targets = functional.interpolate(targets, size=(side, side), mode="bilinear", antialias=True).round()
    device = next(net.parameters()).device
    optimizer = torch.optim.AdamW(net.parameters(), lr=lr, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    meter = Meter("mask network", steps, "steps")
    for step in range(steps):
        generator = step_generator(seed, step)
        chosen = torch.randint(len(parts), (batch,), generator=generator)
        moved, target = move(pixels[chosen], targets[chosen], generator, outside="zeros")
        inputs = normalise(degrade(moved, generator).to(device), net.preprocessing)
        loss = deep_loss(net(inputs), target.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        yield meter.report(step + 1, loss=loss.item())


def deep_loss(logits: Sequence[Tensor], target: Tensor) -> Tensor:
    """Binary cross-entropy summed over the fused and the six side outputs (U²-Net, section 3.3, all weights 1).

    Args:
        logits: seven tensors `(B, 1, H, W)`.
        target: `(B, 1, H, W)` float in {0, 1}.
    """
    losses = [functional.binary_cross_entropy_with_logits(output.float(), target) for output in logits]
    return torch.stack(losses).sum()


def move(pixels: Tensor, masks: Tensor, generator: torch.Generator, *, outside: str) -> tuple[Tensor, Tensor]:
    """Flip every picture at random; turn, scale and shift every other one; the mask alike.

    Args:
        pixels: `(B, 3, H, W)` float in [-1, 1], on the generator's device.
        masks: `(B, 1, H, W)` float in {0, 1}.
        outside: what comes in from beyond the border, as in `grid_sample`: `zeros` (grey, for parts) or `reflection`.
    """
    device = generator.device
    draws = torch.rand((6, len(pixels)), generator=generator, device=device)
    whole = draws[0] < 0.5
    angle = (draws[1] - 0.5) * 0.7 * ~whole
    scale = torch.where(whole, 1.0, 0.8 * (1.25 / 0.8) ** draws[2])
    flips = torch.randint(2, (2, len(pixels)), generator=generator, device=device) * 2 - 1
    shifts = (draws[3:5] - 0.5) * 0.4 * ~whole
    cosine, sine = torch.cos(angle) / scale, torch.sin(angle) / scale
    rows = [torch.stack((cosine, -sine, shifts[0])) * flips[0], torch.stack((sine, cosine, shifts[1])) * flips[1]]
    grid = functional.affine_grid(torch.stack(rows).permute(2, 0, 1), list(pixels.shape), align_corners=False)
    both = functional.grid_sample(torch.cat((pixels, masks), 1), grid, padding_mode=outside, align_corners=False)
    return both[:, :3], (both[:, 3:] > 0.5).float()


def degrade(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """What an autoencoder and a sampler do to a picture: slight blur, white and coarse noise, a shift of colour.

    Args:
        pixels: `(B, 3, H, W)` float in [-1, 1], on the generator's device.
    """
    count, channels, height, width = pixels.shape
    device = generator.device
    strength = torch.rand((4, count, 1, 1, 1), generator=generator, device=device)
    coarse_size = (-(-height // 8), -(-width // 8))
    white = torch.randn(pixels.shape, generator=generator, device=device)
    coarse = torch.randn((count, channels, *coarse_size), generator=generator, device=device)
    coarse = functional.interpolate(coarse, size=(height, width), mode="bilinear")
    shift = torch.randn((count, channels, 1, 1), generator=generator, device=device)
    blurred = functional.avg_pool2d(functional.pad(pixels, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    result = torch.lerp(pixels, blurred, strength[0])
    result = result + 0.06 * strength[1] * white + 0.06 * strength[2] * coarse + 0.03 * strength[3] * shift
    return result.clamp(-1, 1)
