"""Rendered procedural samples in memory, and the square views of them that the base's U-Net and mask networks see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from model.pretrain.procedural.dataset import Shard, load_shard
from model.types import anomaly_part
from service.core.errors import UsageError

_Level = TypeVar("_Level", bound=np.generic)


@dataclass(frozen=True, slots=True)
class ProceduralSet:
    """N samples of side S.

    Attributes:
        images, normals: `(N, S, S, 3)` uint8, with and without the defect.
        masks, object_masks: `(N, S, S)` bool.
        captions, part_captions: of the whole image, and of the anomaly part.
    """

    images: NDArray[np.uint8]
    normals: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    object_masks: NDArray[np.bool_]
    captions: list[str]
    part_captions: list[str]

    def __len__(self) -> int:
        return len(self.images)

    def part(self, index: int) -> NDArray[np.uint8]:
        """The anomaly part of one sample, `(S, S, 3)`."""
        return anomaly_part(self.images[index], self.masks[index])


def load_samples(folder: Path, limit: int) -> ProceduralSet:
    """The first `limit` samples of a folder of shards.

    Raises:
        UsageError: there are no shards.
    """
    paths = sorted(folder.glob("*.npz"))
    if not paths:
        raise UsageError(f"{folder} holds no rendered shards (*.npz): render them first")
    shards: list[Shard] = []
    for path in paths:
        shards.append(load_shard(path))
        if sum(len(shard.image) for shard in shards) >= limit:
            break
    return ProceduralSet(
        images=np.concatenate([shard.image for shard in shards])[:limit],
        normals=np.concatenate([shard.normal for shard in shards])[:limit],
        masks=np.concatenate([shard.mask for shard in shards])[:limit],
        object_masks=np.concatenate([shard.object_mask for shard in shards])[:limit],
        captions=[str(text) for shard in shards for text in shard.caption][:limit],
        part_captions=[str(text) for shard in shards for text in shard.part_caption][:limit],
    )


def square_views(samples: ProceduralSet, pixels: int) -> ProceduralSet:
    """Every sample twice in a row: shrunk to `pixels`, and as a window of `pixels` on its defect at its own scale."""
    size = samples.images.shape[1]
    k = size // pixels
    count = len(samples)

    def shrunk(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        blocks = images.reshape(count, pixels, k, pixels, k, 3)
        return np.stack([block.mean((1, 3)).round().astype(np.uint8) for block in blocks])

    def covered(masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
        shares = masks.reshape(count, pixels, k, pixels, k).mean((2, 4), dtype=np.float32)
        least = np.minimum(1 / 3, shares.max((1, 2), keepdims=True))
        return np.asarray((shares >= least) & (shares > 0))

    places = [_window(mask, pixels, np.random.default_rng(index)) for index, mask in enumerate(samples.masks)]

    def both(arrays: NDArray[_Level], shrink: Callable[[NDArray[_Level]], NDArray[_Level]]) -> NDArray[_Level]:
        windows = np.stack([array[place] for array, place in zip(arrays, places, strict=True)])
        return np.stack([shrink(arrays), windows], axis=1).reshape(2 * count, *windows.shape[1:])

    return ProceduralSet(
        images=both(samples.images, shrunk),
        normals=both(samples.normals, shrunk),
        masks=both(samples.masks, covered),
        object_masks=both(samples.object_masks, covered),
        captions=[caption for caption in samples.captions for _ in range(2)],
        part_captions=[caption for caption in samples.part_captions for _ in range(2)],
    )


def _window(mask: NDArray[np.bool_], pixels: int, draw: np.random.Generator) -> tuple[slice, slice]:
    """A square of `pixels` that holds a random point of the defect at a random place."""
    ys, xs = np.nonzero(mask)
    pick = draw.integers(len(ys))
    left = int(np.clip(xs[pick] - draw.integers(pixels), 0, mask.shape[1] - pixels))
    top = int(np.clip(ys[pick] - draw.integers(pixels), 0, mask.shape[0] - pixels))
    return slice(top, top + pixels), slice(left, left + pixels)
