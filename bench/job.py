"""Measures a job with default settings, from adapter to files: its stages one by one, and its overlapped time.

The work of a second thread cannot be distinguished from waiting for the processor, so the shares are those of a job
without overlap.
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bench.lenient import LENIENT
from bench.model_report import Job
from bench.sizes import Subject
from model.dualanodiff.sampling.config import resolve_sampling
from model.generation.counts import Counts
from model.generation.filter import CandidateFilter
from model.generation.generate import generate_pairs
from model.generation.pair_store import PairStore, store_beside
from model.generation.request import GenerationRequest
from model.runtime.progress import Progress
from model.runtime.timing import observe_stages, stage
from service.core.options.quality import QualityLimits

BATCHES = 2
"""Least number of batches in which work can overlap."""

LIMITS = replace(QualityLimits(), **LENIENT)  # type: ignore[arg-type]  # none of them counts pixels


def measure_job(subject: Subject, batch: int, report: Callable[[str], None]) -> Job:
    """Make pairs twice: stage by stage, and as the library does, with completion in a second thread."""
    config = resolve_sampling(subject.adapter.model.base, {"batch": batch}, has_normals=True)
    pairs = BATCHES * batch
    request = GenerationRequest(
        subject.adapter,
        config,
        pairs,
        normals=subject.normals,
        object_net=subject.object_net,
        limits=LIMITS,
        max_attempts=pairs,
    )
    stages: defaultdict[str, float] = defaultdict(float)

    def observe(stage: str, took: float) -> None:
        stages[stage] += took

    report(f"a job of {pairs} pairs, without overlap")
    observe_stages(observe)
    try:
        in_turn = _timed(lambda store: _in_turn(request, store))
    finally:
        observe_stages(None)
    report(f"a job of {pairs} pairs, overlapped")
    overlapped = _timed(lambda store: _overlapped(request, store))
    return Job(pairs, in_turn, overlapped, dict(stages))


def _timed(job: Callable[[PairStore], None]) -> float:
    with tempfile.TemporaryDirectory(prefix="pairforge-bench-") as folder:
        store = store_beside(Path(folder) / "pairs.zip")
        store.begin({}, Counts())
        began = time.perf_counter()
        job(store)
        return time.perf_counter() - began


def _in_turn(request: GenerationRequest, store: PairStore) -> None:
    candidate_filter = CandidateFilter(request)
    counts = Counts()
    for item in request.sampler().decoded(0, request.attempts_allowed):
        if isinstance(item, Progress):
            continue
        candidate = item.to_candidate()
        verdict = candidate_filter.verdict(candidate)
        if verdict.accepted:
            with stage("store"):
                store.add(counts.accepted, candidate)
        counts.count(verdict)


def _overlapped(request: GenerationRequest, store: PairStore) -> None:
    for _ in generate_pairs(request, Counts(), keep=store.add):
        pass
