"""Resolves a job's request: fills in all defaults and prepares the adapter for sampling."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from model.export.dataset import check_formats
from model.generation.filter import CandidateFilter
from model.generation.request import GenerationRequest
from model.method import Sampler
from model.methods import method_of
from model.types import MaskArray
from service.core.asked_places import asked_places
from service.core.options.declaration import chosen
from service.core.options.methods import METHOD_OPTIONS
from service.core.options.quality import QualityLimits
from worker.attempt.model_cache import Loaded


@dataclass(frozen=True, slots=True)
class GenerationJob:
    """A request divided into blocks of candidates, each sampled by one worker.

    Attributes:
        sampler: samples all blocks; prepared once.
        first: index of its first candidate; more than 0 where it goes on after another job.
    """

    request: GenerationRequest
    sampler: Sampler
    first: int = 0

    @property
    def block_size(self) -> int:
        """Return the number of candidates per block: one batch, so that none is wasted and no setting changes it."""
        return self.request.settings.batch

    @property
    def blocks(self) -> int:
        """Return the largest possible number of blocks."""
        return math.ceil(self.request.attempts_allowed / self.block_size)

    def indices(self, number: int) -> range:
        """Return the indices of a block's candidates."""
        first = self.first + number * self.block_size
        return range(first, min(first + self.block_size, self.first + self.request.attempts_allowed))

    def candidate_filter(self) -> CandidateFilter:
        """Make a filter that has seen no candidate yet."""
        return CandidateFilter(self.request)


def prepare_job(asked: dict[str, Any], loaded: Loaded, drawn: Mapping[str, MaskArray]) -> GenerationJob:
    """Fill in the defaults of a `JobRequest` and prepare its adapter.

    Args:
        drawn: the masks that were drawn for the job, see `worker.generation.places.read_drawn`.

    Raises:
        UsageError: if options do not fit the adapter or its base; names each.
    """
    adapter = loaded.adapter
    options = METHOD_OPTIONS[adapter.card["method"]].of("sampling")
    settings = method_of(adapter).resolve_sampling(
        adapter.base,
        {name: asked.get(name) for name in options},
        has_normals=bool(loaded.normals),
        adapter=adapter,
    )
    check_formats(asked["formats"])
    request = GenerationRequest(
        adapter,
        settings,
        asked["num_pairs"],
        normals=loaded.normals,
        object_net=loaded.networks.object,
        limits=QualityLimits(**chosen(asked["limits"])),
        formats=tuple(asked["formats"]),
        max_attempts=asked["max_attempts"],
        places=asked_places(asked, drawn, loaded.normals),
        defects=asked.get("defects"),
    )
    follows = asked.get("follows") or {}
    return GenerationJob(request, request.sampler(compiles=True), follows.get("first_candidate", 0))
