"""Rendered procedural samples in memory, drawn in batches of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.pretrain.procedural.dataset import Shard, load_shard
from model.types import anomaly_part
from service.core.errors import UsageError


class ProceduralSet:
    """All shards of a folder: `images`, `normals` `(N, S, S, 3)` uint8, `masks`, `object_masks` `(N, S, S)` bool."""

    def __init__(self, folder: Path, limit: int | None = None) -> None:
        paths = sorted(folder.glob("*.npz"))
        if not paths:
            raise UsageError(f"{folder} holds no rendered shards (*.npz): render them first")
        shards: list[Shard] = []
        for path in paths:
            shards.append(load_shard(path))
            if limit is not None and sum(len(shard.image) for shard in shards) >= limit:
                break
        self.images: NDArray[np.uint8] = np.concatenate([shard.image for shard in shards])[:limit]
        self.normals: NDArray[np.uint8] = np.concatenate([shard.normal for shard in shards])[:limit]
        self.masks: NDArray[np.bool_] = np.concatenate([shard.mask for shard in shards])[:limit]
        self.object_masks: NDArray[np.bool_] = np.concatenate([shard.object_mask for shard in shards])[:limit]
        self.captions: list[str] = [str(text) for shard in shards for text in shard.caption][:limit]
        self.part_captions: list[str] = [str(text) for shard in shards for text in shard.part_caption][:limit]
        self.object_names: list[str] = [str(text) for shard in shards for text in shard.object_name][:limit]
        self.defect_names: list[str] = [str(text) for shard in shards for text in shard.defect_name][:limit]

    def __len__(self) -> int:
        return len(self.images)

    def part(self, index: int) -> NDArray[np.uint8]:
        """The anomaly part of one sample, `(S, S, 3)`."""
        return anomaly_part(self.images[index], self.masks[index])


def to_pixels(images: Sequence[NDArray[np.uint8]] | NDArray[np.uint8]) -> Tensor:
    """`(B, H, W, 3)` uint8 images → `(B, 3, H, W)` float pixels in [-1, 1]."""
    stacked = torch.from_numpy(
        np.ascontiguousarray(np.stack(list(images)) if not isinstance(images, np.ndarray) else images)
    )
    return stacked.permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
