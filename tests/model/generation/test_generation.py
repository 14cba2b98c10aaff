"""Generation counts accepted pairs, stops where it should, and goes on where it was interrupted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.diffusion.base import load_base
from model.dualanodiff.adapter import DualAnoDiffAdapter
from model.export.dataset import DatasetSummary
from model.generation.counts import Counts
from model.generation.filter import gate_references
from model.generation.generate import generate_pairs
from model.generation.request import GenerationRequest
from model.masks.objects import Objects
from model.quality.gate import RejectReason
from model.runtime.progress import Progress
from model.types import Candidate
from service.core.errors import UsageError
from service.core.options.common import MaskMethod
from service.core.options.dualanodiff import SamplingConfig
from service.core.options.quality import QualityLimits
from tests.support.tiny_data import PERMISSIVE, drawn_normal, half_seeing_u2net, last, make_dataset, tiny_adapter

CONFIG = SamplingConfig(steps=2, batch=2, mask_method=MaskMethod.THRESHOLD)
NORMALS = [drawn_normal(0), drawn_normal(1)]


@pytest.fixture(scope="module")
def adapter(tiny_base: Path) -> DualAnoDiffAdapter:
    return tiny_adapter(load_base(str(tiny_base)))


@pytest.fixture(scope="module")
def picky(adapter: DualAnoDiffAdapter) -> QualityLimits:
    """Limits that only some of the random candidates meet."""
    judged = [item for item in generate(adapter, 8, Counts(), limits=PERMISSIVE) if isinstance(item, Candidate)]
    areas = sorted(candidate.scores["area"] for candidate in judged)
    largest_real = max(float(real.mask.mean()) for real in gate_references(adapter, anchored=False))
    return replace(PERMISSIVE, max_area_ratio=(areas[3] + areas[4]) / 2 / largest_real)


def generate(adapter: DualAnoDiffAdapter, num_pairs: int, counts: Counts, **options: Any) -> list[Progress | Candidate]:
    asked = {name: options.pop(name) for name in ("limits", "max_attempts") if name in options}
    return list(generate_pairs(GenerationRequest(adapter, CONFIG, num_pairs, **asked), counts, **options))


def accepted(items: list[Progress | Candidate]) -> list[Candidate]:
    return [item for item in items if isinstance(item, Candidate)]


def same(one: list[Candidate], other: list[Candidate]) -> bool:
    return [(a.index, a.scores) for a in one] == [(b.index, b.scores) for b in other] and all(
        np.array_equal(a.image, b.image) and np.array_equal(a.mask, b.mask) for a, b in zip(one, other, strict=True)
    )


def test_the_number_asked_for_is_that_of_accepted_pairs(adapter: DualAnoDiffAdapter, picky: QualityLimits) -> None:
    counts, rejected = Counts(), []
    items = generate(adapter, 4, counts, limits=picky, on_rejected=lambda candidate, _: rejected.append(candidate))
    pairs = accepted(items)
    assert len(pairs) == counts.accepted == 4
    assert rejected
    assert counts.attempts == 4 + len(rejected) == pairs[-1].index + 1
    assert counts.rejected == {RejectReason.MASK_TOO_LARGE: len(rejected)}
    assert sorted(one.index for one in (*pairs, *rejected)) == list(range(counts.attempts))
    assert counts.as_dict() == {
        "attempts": counts.attempts,
        "accepted": 4,
        "rejected": {"mask_too_large": len(rejected)},
    }


def test_progress_says_how_many_are_there_and_how_many_were_rejected(
    adapter: DualAnoDiffAdapter, picky: QualityLimits
) -> None:
    counts = Counts()
    items = generate(adapter, 3, counts, limits=picky)
    reports = [item for item in items if isinstance(item, Progress) and item.stage == "sample"]
    assert len(reports) == counts.attempts
    assert (reports[-1].completed, reports[-1].total) == (3, 3)
    assert reports[-1].note == f"{counts.attempts - 3} rejected"
    steps = [item.completed for item in items if isinstance(item, Progress) and item.stage == "denoise"]
    assert steps == [1, 2] * -(-counts.attempts // CONFIG.batch)


def test_attempts_end_where_nothing_passes(adapter: DualAnoDiffAdapter) -> None:
    counts = Counts()
    impossible = replace(PERMISSIVE, min_visibility=1e9)
    assert not accepted(generate(adapter, 2, counts, limits=impossible, max_attempts=5))
    assert (counts.attempts, counts.accepted) == (5, 0)
    assert counts.rejected[RejectReason.INVISIBLE] == 5


def test_by_default_ten_candidates_are_tried_per_pair(adapter: DualAnoDiffAdapter) -> None:
    counts = Counts()
    generate(adapter, 1, counts, limits=replace(PERMISSIVE, full_area=0.0))
    assert counts.attempts == 10


@pytest.mark.parametrize("stop_after", [1, 2, 3])
def test_a_resumed_job_accepts_the_same_pairs(
    adapter: DualAnoDiffAdapter, picky: QualityLimits, stop_after: int
) -> None:
    whole = Counts()
    pairs = accepted(generate(adapter, 4, whole, limits=picky))
    counts, kept = Counts(), []
    for item in generate_pairs(GenerationRequest(adapter, CONFIG, 4, limits=picky), counts):
        if isinstance(item, Candidate):
            kept.append(item)
            if len(kept) == stop_after:
                break
    assert len(kept) == counts.accepted == stop_after
    rest = accepted(generate(adapter, 4, counts, limits=picky, resumed=kept))
    assert same([*kept, *rest], pairs)
    assert counts == whole


def test_a_finished_job_does_nothing_more(adapter: DualAnoDiffAdapter) -> None:
    counts = Counts(attempts=3, accepted=2)
    assert generate(adapter, 2, counts, limits=PERMISSIVE) == []
    assert counts == Counts(attempts=3, accepted=2)


def test_copies_of_accepted_pairs_are_rejected_also_after_resuming(adapter: DualAnoDiffAdapter) -> None:
    first = accepted(generate(adapter, 1, Counts(), limits=PERMISSIVE))
    counts = Counts()
    strict = replace(PERMISSIVE, accepted_copy=0.0, max_copy=0.0)
    assert not accepted(generate(adapter, 2, counts, limits=strict, resumed=first, max_attempts=3))
    assert counts.rejected[RejectReason.COPY_OF_ACCEPTED] == 3


def test_candidates_are_compared_with_real_defects_at_their_own_scale(adapter: DualAnoDiffAdapter) -> None:
    anchored = gate_references(adapter, anchored=True)
    free = gate_references(adapter, anchored=False)
    assert [real.image.shape for real in anchored] == [(40, 40, 3)] * 2
    assert [real.image.shape for real in free] == [(32, 32, 3)] * 2
    for one, other in zip(anchored, free, strict=True):
        assert other.mask.mean() == pytest.approx(one.mask.mean(), rel=0.3)


def test_products_are_found_alike_whatever_was_looked_at_before() -> None:
    normals = [drawn_normal(0), drawn_normal(1), drawn_normal(2, 40, 70), drawn_normal(3)]
    blank = np.zeros((1, 1, 3), np.uint8)
    candidates = [Candidate(0, 0, blank, blank[..., 0] > 0, blank, normal.name) for normal in normals]
    forth, back = (Objects(half_seeing_u2net(), normals) for _ in range(2))
    found = [forth.in_candidate(candidate) for candidate in candidates]
    for candidate, one in reversed(list(zip(candidates, found, strict=True))):
        other = back.in_candidate(candidate)
        assert one is not None
        assert other is not None
        assert np.array_equal(one, other)
    assert [one.shape for one in found if one is not None] == [normal.image.shape[:2] for normal in normals]


@pytest.fixture(scope="module")
def uninterrupted(adapter: DualAnoDiffAdapter, picky: QualityLimits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of four pairs made in one go."""
    target = tmp_path_factory.mktemp("whole") / "dataset.zip"
    last(make_dataset(adapter, CONFIG, 4, target, limits=picky, max_attempts=50))
    return target


def interrupt(adapter: DualAnoDiffAdapter, target: Path, accepted_before: int, **options: Any) -> None:
    """Stop making a dataset of four pairs once so many are accepted."""
    counts = Counts()
    job = make_dataset(adapter, CONFIG, 4, target, counts=counts, **options)
    while counts.accepted < accepted_before:
        next(job)
    job.close()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("stop_after", [1, 2, 4])
def test_an_interrupted_dataset_is_resumed_to_the_same_bytes(
    adapter: DualAnoDiffAdapter, picky: QualityLimits, uninterrupted: Path, tmp_path: Path, stop_after: int
) -> None:
    target = tmp_path / "dataset.zip"
    interrupt(adapter, target, stop_after, limits=picky, max_attempts=50)
    assert names(tmp_path) == ["dataset.zip.pairs"]
    items = list(make_dataset(adapter, CONFIG, 4, target, limits=picky, max_attempts=50))
    assert isinstance(items[0], Progress)
    assert (items[0].completed, items[0].note[:14]) == (stop_after, "resuming after")
    assert isinstance(items[-1], DatasetSummary)
    assert target.read_bytes() == uninterrupted.read_bytes()
    assert names(tmp_path) == names(uninterrupted.parent) == ["dataset.zip"]


def test_on_normals_too_an_interrupted_dataset_is_resumed_to_the_same_bytes(
    adapter: DualAnoDiffAdapter, tmp_path: Path
) -> None:
    anchored = replace(CONFIG, anchored=True)
    job = {"normals": NORMALS, "limits": PERMISSIVE, "formats": ["coco"]}
    last(make_dataset(adapter, anchored, 3, tmp_path / "whole.zip", **job))
    counts = Counts()
    begun = make_dataset(adapter, anchored, 3, tmp_path / "cut.zip", counts=counts, **job)
    while counts.accepted < 2:
        next(begun)
    begun.close()
    last(make_dataset(adapter, anchored, 3, tmp_path / "cut.zip", **job))
    assert (tmp_path / "cut.zip").read_bytes() == (tmp_path / "whole.zip").read_bytes()


def test_another_request_does_not_go_on_with_the_pairs_of_the_first(
    adapter: DualAnoDiffAdapter, picky: QualityLimits, uninterrupted: Path, tmp_path: Path
) -> None:
    target = tmp_path / "dataset.zip"
    interrupt(adapter, target, 1, limits=PERMISSIVE)
    area = picky.max_area_ratio
    with pytest.raises(UsageError, match="--force") as refused:
        next(make_dataset(adapter, CONFIG, 4, target, limits=picky, normals=NORMALS))
    assert refused.value.problems == [
        f"max_area_ratio was {PERMISSIVE.max_area_ratio!r} and is now {area!r}",
        "the normal images changed",
    ]
    last(make_dataset(adapter, CONFIG, 4, target, limits=picky, max_attempts=50, force=True))
    assert target.read_bytes() == uninterrupted.read_bytes()


def test_too_few_pairs_are_kept_for_more_attempts(
    adapter: DualAnoDiffAdapter, picky: QualityLimits, uninterrupted: Path, tmp_path: Path
) -> None:
    target, counts = tmp_path / "dataset.zip", Counts()
    few = 1
    while counts.accepted == 0:
        few += 1
        with pytest.raises(UsageError, match=r"of 4 pairs passed"):
            last(make_dataset(adapter, CONFIG, 4, target, limits=picky, max_attempts=few, counts=counts))
    with pytest.raises(UsageError, match=rf"max-attempts above {few}") as short:
        last(make_dataset(adapter, CONFIG, 4, target, limits=picky, max_attempts=few, counts=counts))
    assert str(target.with_name("dataset.zip.pairs")) in str(short.value)
    assert counts.attempts == few
    last(make_dataset(adapter, CONFIG, 4, target, limits=picky, max_attempts=50))
    assert target.read_bytes() == uninterrupted.read_bytes()
