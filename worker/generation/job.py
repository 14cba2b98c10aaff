"""What a job asks for, with all defaults filled in."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from model.dualanodiff.sampling.config import resolve_sampling
from model.dualanodiff.sampling.cuda_graphs import Compiler
from model.dualanodiff.sampling.sampler import Sampler, prepare_sampling
from model.export.dataset import check_formats
from model.generation.filter import CandidateFilter
from model.generation.generate import attempts_allowed
from service.core.options.dualanodiff import SamplingConfig
from service.core.options.quality import QualityLimits
from worker.attempt.model_cache import Loaded

SAMPLING = tuple(field.name for field in fields(SamplingConfig))
"""The fields of a request that are settings of sampling."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A request with all defaults filled in.

    Attributes:
        sampler: the adapter, made ready once for all blocks.
        allowed: candidates tried at most.
    """

    loaded: Loaded
    sampler: Sampler
    config: SamplingConfig
    num_pairs: int
    allowed: int
    max_attempts: int | None
    formats: tuple[str, ...]
    limits: QualityLimits

    @property
    def block(self) -> int:
        """Candidates per block: one batch, so that none is sampled in vain, and no setting changes it midway."""
        return self.config.batch

    @property
    def blocks(self) -> int:
        """Blocks there can be at most."""
        return math.ceil(self.allowed / self.block)

    def indices(self, number: int) -> range:
        """The candidates of a block."""
        return range(number * self.block, min((number + 1) * self.block, self.allowed))

    def candidate_filter(self) -> CandidateFilter:
        """A judge of the candidates who has seen none yet."""
        return CandidateFilter(
            self.loaded.adapter,
            self.config,
            normals=self.loaded.normals,
            object_net=self.loaded.networks.object,
            limits=self.limits,
        )


def make_plan(request: dict[str, Any], loaded: Loaded, compiler: Compiler | None) -> Plan:
    """Fill in the defaults of a `JobRequest`.

    Args:
        compiler: of this process, on a GPU.

    Raises:
        UsageError: naming all that does not fit the adapter or its base.
    """
    model = loaded.adapter.model
    config = resolve_sampling(
        model.base,
        {name: request.get(name) for name in SAMPLING},
        has_normals=bool(loaded.normals),
        has_mask_net=loaded.adapter.mask_net is not None,
        bcm=model.config.bcm,
    )
    check_formats(request["formats"])
    return Plan(
        loaded=loaded,
        sampler=prepare_sampling(
            loaded.adapter, config, normals=loaded.normals, object_net=loaded.networks.object, compiler=compiler
        ),
        config=config,
        num_pairs=request["num_pairs"],
        allowed=attempts_allowed(request["num_pairs"], request["max_attempts"]),
        max_attempts=request["max_attempts"],
        formats=tuple(request["formats"]),
        limits=QualityLimits(**{name: value for name, value in request["limits"].items() if value is not None}),
    )
