"""What everything else knows of a method: the names, the card, and candidates that need not have a part."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel

from model.adapter_card import read_adapter_card
from model.diffusion.base import Base, load_base
from model.dualanodiff.adapter import DualAnoDiffAdapter, save_adapter
from model.generation.filter import CandidateFilter
from model.generation.request import GenerationRequest
from model.masks.networks import MaskNetworks
from model.methods import METHODS, load_adapter, method_named, method_of
from model.runtime.progress import Progress
from model.types import Candidate
from service.core.errors import UsageError
from service.core.options.common import MaskMethod
from service.core.options.dualanodiff import SamplingConfig
from service.core.options.methods import METHOD_OPTIONS
from tests.support.tiny_data import (
    PERMISSIVE,
    drawn_normal,
    drawn_pair,
    half_seeing_u2net,
    tiny_adapter,
    tiny_config,
    tiny_u2net,
    training_request,
)
from worker.generation.blocks import pack, unpack


@pytest.fixture(scope="module")
def base(tiny_base: Path) -> Base:
    return load_base(str(tiny_base))


@pytest.fixture(scope="module")
def adapter(base: Base) -> DualAnoDiffAdapter:
    return tiny_adapter(base)


def test_methods_are_those_whose_options_are_declared() -> None:
    assert METHODS.keys() == METHOD_OPTIONS.keys()


def test_a_method_of_another_version_is_refused() -> None:
    with pytest.raises(UsageError, match="method is 'magic'; it must be dualanodiff"):
        method_named("magic")


def test_an_adapter_is_loaded_by_the_method_that_its_card_names(
    adapter: DualAnoDiffAdapter, base: Base, tmp_path: Path
) -> None:
    save_adapter(tmp_path / "adapter", adapter.model, adapter.card, adapter.references)
    loaded = load_adapter(tmp_path / "adapter", base)
    assert isinstance(loaded, DualAnoDiffAdapter)
    assert method_of(loaded) is METHODS["dualanodiff"]
    card = json.loads((tmp_path / "adapter" / "card.json").read_text())
    (tmp_path / "adapter" / "card.json").write_text(json.dumps(card | {"method": "magic"}))
    with pytest.raises(UsageError, match="method 'magic'; this version reads format 1, method 'dualanodiff'"):
        read_adapter_card(tmp_path / "adapter")


def test_the_files_that_a_card_promises_are_written(base: Base, tmp_path: Path) -> None:
    for bcm, saim in itertools.product((False, True), repeat=2):
        made = tiny_adapter(base, bcm=bcm, saim=saim)
        folder = tmp_path / f"{bcm}-{saim}"
        save_adapter(folder, made.model, made.card, made.references)
        weights = {path.relative_to(folder).as_posix() for path in folder.rglob("*.safetensors")}
        assert set(method_of(made).weight_files(made.card)) == weights


def test_an_adapter_of_no_steps_predicts_as_its_base_and_samples(base: Base, tmp_path: Path) -> None:
    pairs = [drawn_pair(number) for number in range(2)]
    config = tiny_config(steps=0, composites=4)
    request = training_request(base, pairs, config, MaskNetworks(None, None), [drawn_normal(0)])
    method = METHODS["dualanodiff"]
    assert not any("normals" in note for note in method.check_training(request))
    list(method.train(request, tmp_path / "adapter", tmp_path / "work"))
    adapter = load_adapter(tmp_path / "adapter", base)
    assert isinstance(adapter, DualAnoDiffAdapter)
    card = adapter.card
    assert (card["steps"], card["kept_step"], card["loss_curve"], card["held_out"]) == (0, 0, [], None)
    assert card["normals"] == []
    with torch.no_grad():
        latents = torch.randn((2, 1, 4, 8, 8), generator=torch.Generator().manual_seed(0))
        text = adapter.model.prompt_embeddings()
        bare = UNet2DConditionModel.from_pretrained(base.folder, subfolder="unet").eval()
        for branch, output in enumerate(adapter.model.denoiser(latents, torch.tensor(400), text)):
            plain = bare(latents[branch], 400, text[branch]).sample
            torch.testing.assert_close(output, plain, atol=1e-5, rtol=1e-5)
    settings = method.resolve_sampling(
        base, {"steps": 2, "mask_method": "threshold"}, has_normals=False, adapter=adapter
    )
    sampler = method.prepare(adapter, settings)
    (candidate,) = (item.to_candidate() for item in sampler.decoded(0, 1) if not isinstance(item, Progress))
    assert candidate.image.shape == (32, 32, 3)


def test_what_a_training_lacks_is_named_before_it_begins(base: Base) -> None:
    method, pairs = METHODS["dualanodiff"], [drawn_pair(0)]
    none, both = MaskNetworks(None, None), MaskNetworks(tiny_u2net(), half_seeing_u2net())
    with pytest.raises(UsageError, match="bcm needs a network that finds objects"):
        method.check_training(training_request(base, pairs, tiny_config(bcm=True), none))
    assert method.check_training(training_request(base, pairs, tiny_config(bcm=True), both)) == []
    normals, masks = method.check_training(training_request(base, pairs, tiny_config(), none, [drawn_normal(0)]))
    assert "the normals are not used in training" in normals
    assert "found by the distance from grey" in masks


def test_all_that_sampling_lacks_is_named_at_once(base: Base) -> None:
    adapter, settings = tiny_adapter(base, bcm=True), SamplingConfig(mask_method=MaskMethod.U2NET)
    with pytest.raises(UsageError) as caught:
        method_of(adapter).check_sampling(adapter, settings, has_normals=False, has_object_net=False)
    assert [problem.split(",")[0] for problem in caught.value.problems] == [
        "mask method u2net needs a mask network",
        "the adapter was trained with bcm",
        "the adapter was trained with bcm",
    ]


def test_half_a_batch_twice_as_often_trains_on_as_many_pairs() -> None:
    halved = tiny_config(batch=6, accumulate=2).with_half_batch()
    assert (halved.batch, halved.accumulate) == (3, 4)


def test_a_candidate_without_a_part_is_checked_and_travels(adapter: DualAnoDiffAdapter, tmp_path: Path) -> None:
    real = drawn_pair(7, 32, 32)
    candidate = Candidate(3, 11, real.image, real.mask)
    limits = replace(PERMISSIVE, max_disagreement=0.0)
    request = GenerationRequest(adapter, SamplingConfig(), 1, limits=limits)
    verdict = CandidateFilter(request).verdict(candidate)
    assert verdict.accepted
    assert "disagreement" not in verdict.scores
    assert not CandidateFilter(request).verdict(replace(candidate, part=real.image // 2)).accepted
    pack(tmp_path / "block.zip", [candidate, replace(candidate, index=4, part=real.image)])
    without, beside = unpack(tmp_path / "block.zip")
    assert without.part is None
    assert beside.part is not None
    assert np.array_equal(beside.part, real.image)
    assert np.array_equal(without.image, real.image)
