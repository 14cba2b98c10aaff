"""Reads shards of procedural views, and draws batches from them.

Shards are mapped into memory on CPUs, so a set may be larger than the memory; for a GPU they are copied to it. A batch
comes from one shard: gathering it is one operation, and a shard holds five hundred unrelated scenes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from model.types import GREY
from service.core.errors import UsageError


@dataclass(frozen=True, slots=True)
class Views:
    """N square views of side P.

    Attributes:
        images, normals: `(N, P, P, 3)` uint8, with and without the defect.
        masks, object_masks: `(N, P, P)` bool.
        names: names of object and defect, per view.
    """

    images: Tensor
    normals: Tensor
    masks: Tensor
    object_masks: Tensor
    names: list[tuple[str, str]]

    def __len__(self) -> int:
        return len(self.images)

    def parts(self, chosen: Tensor) -> Tensor:
        """Return anomaly parts, `(B, P, P, 3)` uint8."""
        return torch.where(self.masks[chosen][..., None], self.images[chosen], GREY)

    def mask_pictures(self, chosen: Tensor) -> Tensor:
        """Return masks as images, white on black, `(B, P, P, 3)` uint8."""
        return (self.masks[chosen].to(torch.uint8) * 255)[..., None].expand(-1, -1, -1, 3)


def load_views(path: Path, device: torch.device | str = "cpu") -> Views:
    """Load a shard written by `render_shard`; on CPUs its pages are read when first used."""
    with safe_open(path, framework="pt", device=str(device)) as shard:
        tensors = {name: shard.get_tensor(name) for name in ("images", "normals", "masks", "object_masks")}
        names = json.loads(shard.metadata()["names"])
    return Views(**tensors, names=[(name, defect) for name, defect in names])


class ViewShards:
    """All shards of a folder, which may still be growing: `refresh` adds new ones.

    Args:
        folder: folder of the shards.
        device: device of the batches.

    Raises:
        UsageError: if there are no shards.
    """

    def __init__(self, folder: Path, device: torch.device | str = "cpu") -> None:
        self.folder = folder
        self.device = torch.device(device)
        self._views: dict[Path, Views] = {}
        self.refresh()
        if not self._views:
            raise UsageError(f"{folder} contains no rendered shards (*.safetensors): run stage render first")

    def __len__(self) -> int:
        return sum(len(views) for views in self._views.values())

    @property
    def shards(self) -> list[Views]:
        """Return the shards in the order of their seeds."""
        return [self._views[path] for path in sorted(self._views)]

    def refresh(self) -> None:
        """Add shards that were written since."""
        for path in sorted(self.folder.glob("*.safetensors")):
            if path not in self._views:
                self._views[path] = load_views(path, self.device)

    def draw(self, count: int, generator: torch.Generator, rng: np.random.Generator) -> tuple[Views, Tensor]:
        """Draw a random shard and `count` random places in it.

        Args:
            generator: draws the places, on the shards' device.
            rng: draws the shard.
        """
        views = self.shards[int(rng.integers(len(self._views)))]
        return views, torch.randint(len(views), (count,), generator=generator, device=self.device)


def as_pixels(images: Tensor) -> Tensor:
    """Convert `(B, P, P, 3)` uint8 to `(B, 3, P, P)` float pixels in [-1, 1], channels last in memory."""
    return images.permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
