"""What holds for both baselines: what they keep, what they refuse, and candidates that their index alone decides."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.adapter_card import read_adapter_card
from model.baselines.adapter import BaselineAdapter
from model.data.placement import NormalImage
from model.diffusion.base import Base, load_base
from model.export.inspection import read_dataset
from model.generation.dataset import make_dataset
from model.generation.filter import CandidateFilter
from model.generation.request import GenerationRequest
from model.masks.networks import MaskNetworks
from model.method import TrainingRequest
from model.methods import METHODS, load_adapter, method_of, train_adapter
from model.runtime.progress import Progress
from model.types import Candidate, Pair
from service.core.errors import UsageError
from tests.support.tiny_data import PERMISSIVE, drawn_normal, drawn_pair, half_seeing_u2net, last

BASELINES = ("copy-paste", "perlin")
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "feather": ("copy-paste", {}),
    "poisson": ("copy-paste", {"blending": "poisson"}),
    "none": ("copy-paste", {"blending": "none"}),
    "deform": ("copy-paste", {"deform": True}),
    "perlin": ("perlin", {}),
}
PAIRS = [drawn_pair(0), drawn_pair(1, 60, 52)]
NORMALS = [drawn_normal(0), drawn_normal(1, 40, 70)]


@pytest.fixture(scope="module")
def base(tiny_base: Path) -> Base:
    return load_base(str(tiny_base))


def collected(base: Base, folder: Path, method: str, **training: Any) -> BaselineAdapter:
    settings = METHODS[method].resolve_training(base, {"view": "window", **training})
    networks = MaskNetworks(None, None)
    request = TrainingRequest(base, PAIRS, settings, "tile", "blot", networks, normals=NORMALS, method=method)
    reports = list(train_adapter(request, folder, folder.with_suffix(".training")))
    assert all(isinstance(report, Progress) for report in reports)
    assert (reports[-1].completed, reports[-1].total) == (2, 2)
    adapter = load_adapter(folder, base)
    assert isinstance(adapter, BaselineAdapter)
    return adapter


@pytest.fixture(scope="module")
def adapters(base: Base, tmp_path_factory: pytest.TempPathFactory) -> dict[str, BaselineAdapter]:
    folder = tmp_path_factory.mktemp("adapters")
    return {method: collected(base, folder / method, method) for method in BASELINES}


@pytest.fixture(params=KINDS)
def request_of(request: pytest.FixtureRequest, adapters: dict[str, BaselineAdapter]) -> GenerationRequest:
    method, options = KINDS[request.param]
    return asked(adapters[method], **options)


def asked(adapter: BaselineAdapter, **options: Any) -> GenerationRequest:
    method = method_of(adapter)
    settings = method.resolve_sampling(adapter.base, {"seed": 3, **options}, has_normals=True, adapter=adapter)
    return GenerationRequest(adapter, settings, 5, normals=NORMALS, limits=PERMISSIVE)


def drawn(request: GenerationRequest, start: int, stop: int) -> list[Candidate]:
    items = request.sampler().decoded(start, stop)
    return [item.to_candidate() for item in items if not isinstance(item, Progress)]


def test_good_parts_have_their_turn(request_of: GenerationRequest) -> None:
    names = [each.normal for each in drawn(request_of, 0, 6)]
    for start in range(0, 6, len(NORMALS)):
        assert set(names[start : start + len(NORMALS)]) == {each.name for each in NORMALS}


def content(candidates: list[Candidate]) -> Iterator[tuple[int, int, bytes, bytes, Any]]:
    for each in candidates:
        yield each.index, each.seed, each.image.tobytes(), each.mask.tobytes(), each.window


@pytest.mark.parametrize("method", BASELINES)
def test_an_adapter_keeps_the_real_pairs_bit_for_bit(
    adapters: dict[str, BaselineAdapter], base: Base, method: str, tmp_path: Path
) -> None:
    adapter = adapters[method]
    for kept, real in zip(adapter.pairs, PAIRS, strict=True):
        assert kept.name == real.name
        assert np.array_equal(kept.image, real.image)
        assert np.array_equal(kept.mask, real.mask)
    assert method_of(adapter) is METHODS[method]
    assert adapter.resolution == base.resolution
    collected(base, tmp_path / "again", method)
    card = read_adapter_card(tmp_path / "again")
    assert card == adapter.card
    assert (card["method"], card["steps"], card["loss_curve"]) == (method, 0, [])
    assert METHODS[method].weight_files(card) == []


@pytest.mark.parametrize("file", ["pairs/001.png", "pairs/000_mask.png", "reference/001.png"])
def test_a_damaged_adapter_names_its_missing_files(base: Base, tmp_path: Path, file: str) -> None:
    collected(base, tmp_path / "adapter", "perlin")
    (tmp_path / "adapter" / file).unlink()
    with pytest.raises(UsageError, match=file.removesuffix(".png").removesuffix("_mask")):
        load_adapter(tmp_path / "adapter", base)


def test_an_adapter_belongs_to_its_base(base: Base, tmp_path: Path) -> None:
    collected(base, tmp_path / "adapter", "copy-paste")
    with pytest.raises(UsageError, match=r"was trained on the base .*, not on .*other"):
        load_adapter(tmp_path / "adapter", replace(base, name="other", digest="0" * 64))


@pytest.mark.parametrize("method", BASELINES)
def test_without_normals_there_is_nothing_to_lay_a_defect_on(
    adapters: dict[str, BaselineAdapter], base: Base, method: str
) -> None:
    with pytest.raises(UsageError, match=f"{method} lays defects on normal images, but none were given"):
        METHODS[method].resolve_sampling(base, {}, has_normals=False, adapter=adapters[method])


def test_an_option_of_another_method_is_refused(base: Base) -> None:
    with pytest.raises(UsageError, match=r"unknown perlin sampling options guidance_scale; known are largest_area"):
        METHODS["perlin"].resolve_sampling(base, {"guidance_scale": 2.0}, has_normals=True, adapter=None)


def test_candidates_depend_on_their_index_alone(request_of: GenerationRequest) -> None:
    together = list(content(drawn(request_of, 0, 6)))
    assert together == [
        *content(drawn(request_of, 0, 1)),
        *content(drawn(request_of, 1, 4)),
        *content(drawn(request_of, 4, 6)),
    ]
    assert len({image for _, _, image, _, _ in together}) == 6
    other = replace(request_of, settings=replace(request_of.settings, seed=4))
    assert not {entry[2] for entry in together} & {entry[2] for entry in content(drawn(other, 0, 6))}


def test_candidates_change_their_normal_only_around_the_defect(request_of: GenerationRequest) -> None:
    normals = {normal.name: normal.image for normal in NORMALS}
    fades = 8 if request_of.settings.as_dict().get("deform") else 3
    exact = request_of.settings.as_dict().get("blending", "none") == "none" and fades == 3
    for candidate in drawn(request_of, 0, 16):
        assert candidate.normal is not None
        normal, mask = normals[candidate.normal], candidate.mask
        assert candidate.image.shape == normal.shape
        assert mask.any()
        reach = mask if exact else spread(mask, fades)
        assert np.array_equal(candidate.image[~reach], normal[~reach])
        assert not np.array_equal(candidate.image[mask], normal[mask])


def spread(mask: np.ndarray, distance: int) -> np.ndarray:
    rows, columns = np.nonzero(mask)
    y, x = np.indices(mask.shape)
    gaps = (y[..., None] - rows) ** 2 + (x[..., None] - columns) ** 2
    return np.asarray(gaps.min(-1) <= distance**2)


def test_windows_show_the_whole_defect(request_of: GenerationRequest) -> None:
    for candidate in drawn(request_of, 0, 16):
        assert candidate.window is not None
        left, top, right, bottom = candidate.window
        assert right - left == bottom - top
        assert candidate.mask[top:bottom, left:right].sum() == candidate.mask.sum()


def test_an_interrupted_dataset_is_the_same(request_of: GenerationRequest, tmp_path: Path) -> None:
    def made(name: str, *, interrupted: bool) -> str:
        target = tmp_path / name
        if interrupted:
            items = make_dataset(request_of, target)
            for item in items:
                if isinstance(item, Progress) and item.completed >= 2:
                    items.close()  # type: ignore[attr-defined]
                    break
        last(make_dataset(request_of, target))
        assert read_dataset(target).num_pairs == 5
        return hashlib.sha256(target.read_bytes()).hexdigest()

    assert made("whole.zip", interrupted=False) == made("resumed.zip", interrupted=True)


def test_being_a_copy_is_no_reason_to_reject_a_copy(adapters: dict[str, BaselineAdapter]) -> None:
    limits = replace(PERMISSIVE, defect_copy=0.0, accepted_copy=0.0, max_copy=0.0)
    for method, accepted in (("copy-paste", True), ("perlin", False)):
        request = replace(asked(adapters[method]), limits=limits)
        candidates, candidate_filter = drawn(request, 0, 3), CandidateFilter(request)
        assert [candidate_filter.verdict(candidate).accepted for candidate in candidates] == [accepted] * 3
        assert all("defect_like_real" in candidate.scores for candidate in candidates)


@pytest.mark.parametrize("method", BASELINES)
def test_defects_lie_on_the_product_where_one_is_found(adapters: dict[str, BaselineAdapter], method: str) -> None:
    request = replace(asked(adapters[method]), object_net=half_seeing_u2net())
    sampler = request.sampler()
    scene = sampler.scene  # type: ignore[attr-defined]
    products = {normal.name: scene.product_in(normal) for normal in NORMALS}
    free = {each.index: each for each in drawn(replace(request, object_net=None), 0, 24)}
    shares: dict[bool, list[float]] = {True: [], False: []}
    for item in sampler.decoded(0, 24):
        candidate = item.to_candidate()  # type: ignore[union-attr]
        product = products[str(candidate.normal)]
        if product is not None:
            shares[True].append(product[candidate.mask].mean())
            shares[False].append(product[free[candidate.index].mask].mean())
    assert shares[True]
    assert np.mean(shares[True]) > np.mean(shares[False])


def test_grey_photographs_stay_grey(base: Base, tmp_path: Path) -> None:
    def grey(image: np.ndarray) -> np.ndarray:
        return np.repeat(image[..., :1], 3, 2)

    pairs = [Pair(pair.name, grey(pair.image), pair.mask) for pair in PAIRS]
    normals = [NormalImage(normal.name, grey(normal.image)) for normal in NORMALS]
    for kind, (method, options) in KINDS.items():
        settings = METHODS[method].resolve_training(base, {})
        request = TrainingRequest(base, pairs, settings, "tile", "blot", MaskNetworks(None, None), method=method)
        last(train_adapter(request, tmp_path / kind, tmp_path / "work"))
        adapter = load_adapter(tmp_path / kind, base)
        assert isinstance(adapter, BaselineAdapter)
        for candidate in drawn(replace(asked(adapter, **options), normals=normals), 0, 6):
            assert np.ptp(candidate.image, axis=2).max() == 0
