"""A request for a dataset: all that decides which pairs are made and accepted, and how they are stored."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from model.data.placement import NormalImage
from model.masks.u2net import U2Net
from model.method import Adapter, Sampler, SamplingSettings
from model.methods import method_of
from service.core.options.quality import QualityLimits

ATTEMPTS_PER_PAIR = 10
"""By default at most this many candidates are tried per wanted pair."""


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """What a dataset is made from.

    Attributes:
        settings: of sampling, resolved for the adapter.
        num_pairs: accepted pairs.
        normals: defect-free images to generate on.
        object_net: finds products, see `model.masks.networks.load_object_net`.
        limits: of the quality checks.
        formats: layouts to add to the dataset.
        max_attempts: candidates tried at most; None for ten per pair.
    """

    adapter: Adapter
    settings: SamplingSettings
    num_pairs: int
    normals: Sequence[NormalImage] = ()
    object_net: U2Net | None = None
    limits: QualityLimits = field(default_factory=QualityLimits)
    formats: Sequence[str] = ()
    max_attempts: int | None = None

    @property
    def attempts_allowed(self) -> int:
        """Candidates tried at most."""
        return self.max_attempts if self.max_attempts is not None else ATTEMPTS_PER_PAIR * self.num_pairs

    def sampler(self, *, compiles: bool = False) -> Sampler:
        """Make the adapter ready for sampling.

        Args:
            compiles: whether the process lives long enough for compiling on a GPU to pay.
        """
        return method_of(self.adapter).prepare(
            self.adapter, self.settings, normals=self.normals, object_net=self.object_net, compiles=compiles
        )

    def described(self) -> dict[str, Any]:
        """What was asked for, as JSON, for the dataset's own description."""
        return {
            "num_pairs": self.num_pairs,
            "max_attempts": self.max_attempts,
            "formats": sorted(self.formats),
            "limits": asdict(self.limits),
            **self.settings.as_dict(),
        }

    def identity(self) -> dict[str, Any]:
        """All that decides which candidates are made and accepted, as JSON; the card names the base's weights."""
        return {
            "adapter": self.adapter.card,
            "num_pairs": self.num_pairs,
            "normals": [[normal.name, hashlib.sha256(normal.image.tobytes()).hexdigest()] for normal in self.normals],
            "object_net": _weights_hash(self.object_net) if self.object_net is not None else None,
            **asdict(self.limits),
            **self.settings.as_dict(),
        }


def _weights_hash(net: U2Net) -> str:
    total = hashlib.sha256()
    for name, tensor in sorted(net.state_dict().items()):
        total.update(name.encode())
        total.update(tensor.cpu().numpy().tobytes())
    return total.hexdigest()
