"""Every given mask gets as many pairs as the others, however the checks treat what is drawn in them."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest

from model.anomalydiffusion.adapter import AnomalyDiffusionAdapter
from model.anomalydiffusion.calibration import visibility
from model.diffusion.base import load_base
from model.export.inspection import read_dataset
from model.generation.counts import Counts
from model.generation.dataset import make_dataset, shortfall
from model.generation.filter import CandidateFilter
from model.generation.generate import generate_pairs
from model.generation.request import GenerationRequest
from model.quality.gate import RejectReason
from model.runtime.progress import Progress
from model.types import Candidate
from service.core.asked_places import asked_places
from service.core.errors import UsageError
from service.core.options.anomalydiffusion import AnomalySamplingConfig
from service.core.options.quality import QualityLimits
from service.core.places import GivenMask, Places
from tests.support.tiny_anomaly import NORMALS, sampled, tiny_adapter
from tests.support.tiny_data import PERMISSIVE, last

SETTINGS = AnomalySamplingConfig(steps=2, batch=2, guidance_scale=1.0)
TYPES = ("crack", "break")


def given(name: str, row: int, defect: str | None = None, height: int = 5) -> GivenMask:
    mask = np.zeros(NORMALS[0].image.shape[:2], np.bool_)
    mask[row : row + height, 4:16] = True
    return GivenMask(name, mask, defect)


MASKS = (given("top", 4), given("good1.png", 20), given("bottom", 40))
TYPED = (given("crack/a", 4, "crack"), given("any", 20), given("break/c", 40, "break"))


@pytest.fixture(scope="module")
def adapter(tiny_base: Path) -> AnomalyDiffusionAdapter:
    return tiny_adapter(load_base(str(tiny_base)))


@pytest.fixture(scope="module")
def typed(tiny_base: Path) -> AnomalyDiffusionAdapter:
    return tiny_adapter(load_base(str(tiny_base)), TYPES)


def picky(adapter: AnomalyDiffusionAdapter, masks: tuple[GivenMask, ...]) -> QualityLimits:
    """Limits that half of the candidates do not meet."""
    seen = [visibility([each]) for each in sampled(adapter, 0, 12, places=Places(masks))]
    return replace(PERMISSIVE, min_visibility=float(np.median(seen)))


def request(
    adapter: AnomalyDiffusionAdapter, num_pairs: int, masks: tuple[GivenMask, ...], **asked: Any
) -> GenerationRequest:
    chosen = {"limits": PERMISSIVE, "max_attempts": 60, **asked}
    return GenerationRequest(adapter, SETTINGS, num_pairs, normals=NORMALS, places=Places(masks), **chosen)


def one_by_one(asked: GenerationRequest) -> tuple[list[int], Counter[str], int]:
    """What it should come to: every candidate is made, and of complete masks none is looked at."""
    judge, accepted, made, skipped = CandidateFilter(asked), list[int](), Counter[str](), 0
    assert asked.plan is not None
    for item in asked.sampler().decoded(0, asked.attempts_allowed):
        if not hasattr(item, "to_candidate") or len(accepted) == asked.num_pairs:
            continue
        candidate = item.to_candidate()
        kind = asked.plan.kind(candidate.index)
        assert kind.given is not None
        assert (candidate.defect, candidate.given) == (kind.defect, kind.given.name)
        assert np.array_equal(candidate.mask, kind.given.mask)
        if made[kind.label] == kind.pairs:
            skipped += 1
        elif judge.verdict(candidate).accepted:
            made[kind.label] += 1
            accepted.append(candidate.index)
    return accepted, made, skipped


@pytest.mark.parametrize(
    ("types", "num_pairs", "expected"),
    [
        (1, 6, {"top": 2, "good1.png": 2, "bottom": 2}),
        (1, 4, {"top": 2, "good1.png": 1, "bottom": 1}),
        (2, 6, {"crack/a": 2, "any (crack)": 1, "any (break)": 2, "break/c": 1}),
    ],
)
def test_every_mask_gets_its_pairs(
    adapter: AnomalyDiffusionAdapter,
    typed: AnomalyDiffusionAdapter,
    types: int,
    num_pairs: int,
    expected: dict[str, int],
) -> None:
    used, masks = (adapter, MASKS) if types == 1 else (typed, TYPED)
    asked, counts = request(used, num_pairs, masks, limits=picky(used, masks)), Counts()
    found = [item for item in generate_pairs(asked, counts) if isinstance(item, Candidate)]
    accepted, made, skipped = one_by_one(asked)
    assert [each.index for each in found] == accepted
    assert counts.masks == made == expected
    assert counts.skipped == skipped
    assert counts.attempts > counts.accepted
    assert Counts.from_dict(counts.as_dict()) == counts


def test_an_interrupted_dataset_goes_on_with_each_masks_count(adapter: AnomalyDiffusionAdapter, tmp_path: Path) -> None:
    asked = request(adapter, 5, MASKS, limits=picky(adapter, MASKS))
    last(make_dataset(asked, tmp_path / "whole.zip"))
    for stop in (2, 4):
        counts = Counts()
        for item in make_dataset(asked, tmp_path / "parts.zip", counts=counts):
            if counts.accepted == stop:
                break
            del item
    last(make_dataset(asked, tmp_path / "parts.zip"))
    assert (tmp_path / "parts.zip").read_bytes() == (tmp_path / "whole.zip").read_bytes()
    described = read_dataset(tmp_path / "whole.zip").description
    assert described["request"]["masks"] == {"top": 2, "good1.png": 2, "bottom": 1}
    assert described["counts"]["masks"] == described["request"]["masks"]
    assert "defects" not in described["counts"]
    with ZipFile(tmp_path / "whole.zip") as file:
        rows = [json.loads(line) for line in file.read("manifest.jsonl").splitlines()]
    assert Counter(row["given"] for row in rows) == Counter(described["request"]["masks"])


def test_masks_that_cannot_be_filled_are_named(adapter: AnomalyDiffusionAdapter, tmp_path: Path) -> None:
    masks = (MASKS[0], given("huge", 1, height=50), MASKS[2])
    largest = replace(PERMISSIVE, full_area=0.12)
    asked, counts = request(adapter, 3, masks, limits=largest, max_attempts=12), Counts()
    with pytest.raises(UsageError, match=r"only 2 of 3 pairs.*too few pairs of the masks huge \(0 of 1, full_mask 4\)"):
        last(make_dataset(asked, tmp_path / "made.zip", counts=counts))
    assert counts.masks == {"top": 1, "huge": 0, "bottom": 1}
    assert (counts.attempts, counts.skipped, counts.reached) == (6, 6, 12)
    assert counts.rejected == Counter({str(RejectReason.FULL_MASK): 4})
    assert counts.masks_rejected == {"huge": counts.rejected}
    assert Counts.from_dict(counts.as_dict()) == counts


def test_the_most_frequent_reasons_are_told_with_what_helps(adapter: AnomalyDiffusionAdapter) -> None:
    asked = request(adapter, 3, MASKS)
    why = {
        "top": Counter(mask_differs_from_change=7, unlike_real=2, invisible=1),
        "bottom": Counter(mask_differs_from_change=5),
    }
    counts = Counts(20, 1, sum(why.values(), Counter()), masks={"good1.png": 1}, masks_rejected=why)
    told = shortfall(counts, asked)
    top = "top (0 of 1, mask_differs_from_change 7, unlike_real 2)"
    assert f"too few pairs of the masks {top}, bottom (0 of 1, mask_differs_from_change 5); mask_differs" in told
    assert told.count("does not change all of the mask, perhaps because the place already looks like it") == 1
    assert "widen it" not in told
    bounded = GenerationRequest(adapter, SETTINGS, 3, normals=NORMALS)
    told = shortfall(Counts(30, 0, Counter(outside_region=30)), bounded)
    assert told.endswith("outside_region: the region has too little room for such defects; widen it")
    assert "does not change" not in shortfall(Counts(30, 0, Counter(mask_differs_from_change=30)), bounded)


def test_an_outline_is_drawn_on_photographs_of_all_sizes_at_theirs(adapter: AnomalyDiffusionAdapter) -> None:
    wide = replace(NORMALS[0], name="wide", image=np.pad(NORMALS[0].image, ((0, 0), (0, 12), (0, 0)), mode="edge"))
    corners = [[0.1, 0.1], [0.6, 0.1], [0.6, 0.4], [0.1, 0.4]]
    normals = [*NORMALS, wide]
    places = asked_places({"placements": [{"polygon": corners}]}, {}, normals)
    asked = replace(request(adapter, 8, ()), normals=normals, places=places)
    made = [item.to_candidate() for item in asked.sampler().decoded(0, 8) if not isinstance(item, Progress)]
    assert {candidate.normal for candidate in made} == {normal.name for normal in normals}
    for candidate in made:
        assert candidate.mask.shape == candidate.image.shape[:2]
        assert candidate.mask.mean() == pytest.approx(0.15, abs=0.02)
