"""A dataset gets as many pairs of each defect type as were asked for, however the checks treat the types."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from model.anomalydiffusion.adapter import AnomalyDiffusionAdapter
from model.diffusion.base import load_base
from model.export.inspection import read_dataset
from model.generation.counts import Counts
from model.generation.dataset import make_dataset
from model.generation.filter import CandidateFilter
from model.generation.generate import generate_pairs
from model.generation.request import GenerationRequest
from model.quality.gate import RejectReason
from model.types import Candidate
from service.core.errors import UsageError
from service.core.options.anomalydiffusion import AnomalySamplingConfig
from service.core.options.quality import QualityLimits
from tests.support.tiny_anomaly import NORMALS, sampled, tiny_adapter
from tests.support.tiny_data import PERMISSIVE, last

SETTINGS = AnomalySamplingConfig(steps=2, batch=2, guidance_scale=1.0)
TYPES = ("crack", "break")


@pytest.fixture(scope="module")
def adapter(tiny_base: Path) -> AnomalyDiffusionAdapter:
    return tiny_adapter(load_base(str(tiny_base)), TYPES)


@pytest.fixture(scope="module")
def picky(adapter: AnomalyDiffusionAdapter) -> QualityLimits:
    """Limits that some of the candidates do not meet."""
    judge = CandidateFilter(request(adapter, 1))
    ratios: dict[str, list[float]] = {name: [] for name in TYPES}
    for candidate in sampled(adapter, 0, 12):
        assert candidate.defect is not None
        largest = max(float(real.mask.mean()) for real in adapter.references_of(candidate.defect))
        ratios[candidate.defect].append(judge.verdict(candidate).scores["area"] / largest)
    return replace(PERMISSIVE, max_area_ratio=max(float(np.median(each)) for each in ratios.values()))


def request(adapter: AnomalyDiffusionAdapter, num_pairs: int, **asked: Any) -> GenerationRequest:
    return GenerationRequest(adapter, SETTINGS, num_pairs, normals=NORMALS, **{"limits": PERMISSIVE, **asked})


def generate(asked: GenerationRequest, counts: Counts, **more: Any) -> list[Candidate]:
    return [item for item in generate_pairs(asked, counts, **more) if isinstance(item, Candidate)]


def one_by_one(asked: GenerationRequest) -> tuple[list[int], Counts]:
    """What it should come to: every candidate is made, and of complete types none is looked at."""
    judge, counts, accepted = CandidateFilter(asked), Counts(), list[int]()
    assert asked.plan is not None
    for item in asked.sampler().decoded(0, asked.attempts_allowed):
        if not hasattr(item, "to_candidate") or len(accepted) == asked.num_pairs:
            continue
        candidate = item.to_candidate()
        kind = asked.plan.kind(candidate.index)
        assert candidate.defect == kind.defect
        if counts.defects.get(kind.label, 0) == kind.pairs:
            counts.skipped += 1
            continue
        verdict = judge.verdict(candidate)
        counts.count(verdict, kind)
        accepted += [candidate.index] if verdict.accepted else []
    return accepted, counts


@pytest.mark.parametrize("wanted", [None, {"break": 3, "crack": 1}])
def test_every_type_gets_its_pairs(
    adapter: AnomalyDiffusionAdapter, picky: QualityLimits, wanted: dict[str, int] | None
) -> None:
    num_pairs = 5 if wanted is None else sum(wanted.values())
    asked, counts = request(adapter, num_pairs, limits=picky, defects=wanted, max_attempts=30), Counts()
    made = generate(asked, counts)
    accepted, expected = one_by_one(asked)
    assert [each.index for each in made] == accepted
    assert counts == expected
    share = Counter(each.defect for each in made)
    assert share == Counter({"crack": 3, "break": 2} if wanted is None else wanted)
    assert Counts.from_dict(counts.as_dict()) == counts


def test_each_type_is_checked_by_what_its_own_real_defects_are_like(adapter: AnomalyDiffusionAdapter) -> None:
    first, second = (adapter.references_of(name) for name in TYPES)
    assert [*first, *second] == adapter.references
    wider = [replace(each, mask=ndimage.binary_dilation(each.mask, iterations=6)) for each in second]
    mixed = replace(adapter, references=[*first, *wider])
    limits = replace(PERMISSIVE, max_area_ratio=1.0)
    judge = CandidateFilter(request(mixed, 1, limits=limits))
    crack, other = (replace(each, mask=wider[0].mask, image=wider[0].image) for each in sampled(adapter, 0, 2))
    crack, other = (replace(each, window=None, normal=None) for each in (crack, other))
    assert RejectReason.MASK_TOO_LARGE in judge.verdict(crack).reasons
    assert RejectReason.MASK_TOO_LARGE not in judge.verdict(other).reasons


def test_what_a_type_lacks_when_the_attempts_are_used_up_is_told(
    adapter: AnomalyDiffusionAdapter, picky: QualityLimits, tmp_path: Path
) -> None:
    blind, counts = replace(picky, max_area_ratio=1e-6), Counts()
    with pytest.raises(UsageError, match=r"only 0 of 4 pairs \(break 0, crack 0\) passed"):
        last(make_dataset(request(adapter, 4, limits=blind, max_attempts=6), tmp_path / "none.zip", counts=counts))
    assert (counts.attempts, counts.skipped, counts.reached) == (6, 0, 6)


def test_a_complete_type_is_no_longer_made(adapter: AnomalyDiffusionAdapter) -> None:
    asked = request(adapter, 4)
    made, made_all = list[int](), Counts(accepted=2, defects={"crack": 2})
    for item in asked.sampler().decoded(0, 8, lambda index: asked.is_needed(index, made_all)):
        made += [item.index] if hasattr(item, "index") else []
    assert made == [1, 3, 5, 7]


def test_an_interrupted_dataset_goes_on_with_each_types_count(
    adapter: AnomalyDiffusionAdapter, picky: QualityLimits, tmp_path: Path
) -> None:
    asked = request(adapter, 5, limits=picky, formats=["coco", "mvtec", "yolo", "labelstudio"], max_attempts=40)
    last(make_dataset(asked, tmp_path / "whole.zip"))
    stop: Callable[[], Counts] = Counts
    for counts in (stop(), stop()):
        for item in make_dataset(asked, tmp_path / "parts.zip", counts=counts):
            if counts.accepted == 2:
                break
            del item
    last(make_dataset(asked, tmp_path / "parts.zip"))
    assert (tmp_path / "parts.zip").read_bytes() == (tmp_path / "whole.zip").read_bytes()
    described = read_dataset(tmp_path / "whole.zip").description
    assert described["counts"]["defects"] == {"break": 2, "crack": 3}
    assert described["request"]["defects"] == {"crack": 3, "break": 2}


def test_types_are_classes_and_folders_of_their_own(adapter: AnomalyDiffusionAdapter, tmp_path: Path) -> None:
    import json
    from zipfile import ZipFile

    asked = request(adapter, 4, formats=["coco", "mvtec", "yolo", "labelstudio"])
    last(make_dataset(asked, tmp_path / "typed.zip"))
    with ZipFile(tmp_path / "typed.zip") as file:
        rows = [json.loads(line) for line in file.read("manifest.jsonl").splitlines()]
        coco = json.loads(file.read("coco/instances_rle.json"))
        tasks = json.loads(file.read("labelstudio/tasks.json"))
        config = file.read("labelstudio/config.xml").decode()
        names, yolo = file.namelist(), file.read("data.yaml").decode()
        labels = [file.read(f"labels/{number:06d}.txt").decode()[0] for number in range(4)]
    assert [row["defect"] for row in rows] == ["crack", "break", "crack", "break"]
    assert [each["name"] for each in coco["categories"]] == list(TYPES)
    types = {each["image_id"]: each["category_id"] for each in coco["annotations"]}
    assert types == {1: 1, 2: 2, 3: 1, 4: 2}
    assert labels == ["0", "1", "0", "1"]
    assert "0: crack" in yolo
    assert "1: break" in yolo
    assert {"mvtec/metal_tile/test/crack/000.png", "mvtec/metal_tile/test/break/001.png"} <= set(names)
    shown = [task["annotations"][0]["result"][0]["value"]["brushlabels"] for task in tasks[:2]]
    assert shown == [["crack"], ["break"]]
    assert config.count("<Label value=") == 2
    assert np.all([row["mask_area"] > 0 for row in rows])
