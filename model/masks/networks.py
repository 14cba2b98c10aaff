"""Loads the two mask networks that a base contains or the user names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from model.masks.u2net import U2Net, load_u2net


class HasMaskWeights(Protocol):
    """What a base must offer, see `model.diffusion.base.Base`."""

    @property
    def device(self) -> torch.device: ...
    def mask_weights(self, name: str) -> Path | None: ...


@dataclass(frozen=True, slots=True)
class MaskNetworks:
    """The two U²-Nets, None if missing: `part` finds defects on anomaly parts, `object` finds products."""

    part: U2Net | None
    object: U2Net | None


def load_mask_networks(base: HasMaskWeights, part: Path | None = None, object_: Path | None = None) -> MaskNetworks:
    """Load the networks named by path; by default the base's own, and for objects else the mini base's.

    Args:
        part, object_: weight files, `.safetensors` or official `.pth`.
    """
    return MaskNetworks(_load_net(base, "part", part), load_object_net(base, object_))


def load_object_net(base: HasMaskWeights, path: Path | None = None) -> U2Net | None:
    """Load the network that finds products, the only one that generation needs beside the adapter's own."""
    return _load_net(base, "object", path)


def _load_net(base: HasMaskWeights, name: str, path: Path | None) -> U2Net | None:
    file = path or base.mask_weights(name)
    return load_u2net(file).to(base.device).eval() if file is not None else None
