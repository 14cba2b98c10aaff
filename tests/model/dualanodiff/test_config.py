from __future__ import annotations

from pathlib import Path

import pytest

from model.diffusion.base import Base, load_base
from model.dualanodiff.config import resolve_config
from model.dualanodiff.sampling.config import resolve_sampling
from service.core.errors import UsageError
from service.core.options.declaration import choose
from service.core.options.dualanodiff import SamplingConfig, TrainingConfig
from service.core.options.presets import sampling_preset, training_preset


@pytest.fixture
def base(tiny_base: Path) -> Base:
    return load_base(str(tiny_base))


def test_a_base_without_a_card_is_trained_as_in_the_paper_at_its_own_resolution(base: Base) -> None:
    assert resolve_config(base, {}) == TrainingConfig(resolution=32)


def test_the_users_choice_counts_before_the_bases_and_that_before_the_papers(base: Base) -> None:
    base.card = {"few_shot": {"steps": 600, "lr": 1e-3, "unknown to this version": 1}}
    config = resolve_config(base, {"steps": 9, "batch": None, "resolution": 64})
    assert (config.steps, config.lr, config.batch, config.resolution) == (9, 1e-3, 4, 64)


def test_unknown_options_are_named(base: Base) -> None:
    with pytest.raises(
        UsageError, match="unknown dualanodiff training options epochs, learning_rate; known are accumulate, batch"
    ):
        resolve_config(base, {"learning_rate": 1, "epochs": 2, "steps": 3})


def test_every_value_that_cannot_be_is_named_at_once(base: Base) -> None:
    wrong = {"steps": -1, "text_rank": -1, "lr": 0.0, "clip_norm": float("nan"), "view": "crop", "resolution": 36}
    wrong |= {"composites": -1, "real_share": 1.5, "prior_share": float("nan")}
    with pytest.raises(UsageError) as caught:
        resolve_config(base, wrong)
    assert [problem.split(";")[0] for problem in caught.value.problems] == [
        *("steps is -1", "text_rank is -1", "lr is 0.0", "clip_norm is nan", "view is 'crop'", "composites is -1"),
        *("real_share is 1.5", "prior_share is nan", "resolution is 36"),
    ]


def test_shares_of_a_batch_are_at_most_the_whole(base: Base) -> None:
    assert resolve_config(base, {"real_share": 0.75, "prior_share": 0.25}).real_share == 0.75
    with pytest.raises(UsageError, match=r"real_share is 0.8 and prior_share 0.25; together they must be at most 1"):
        resolve_config(base, {"real_share": 0.8, "prior_share": 0.25})


def test_what_a_base_recommends_wrongly_is_not_blamed_on_the_user(base: Base) -> None:
    base.card = {"few_shot": {"lr": -1, "resolution": None}}
    with pytest.raises(UsageError, match=r"The training options that base .* recommends cannot be used") as caught:
        resolve_config(base, {"lr": 1e-3})
    assert [problem.split(";")[0] for problem in caught.value.problems] == ["lr is -1", "resolution is None"]


@pytest.mark.parametrize("random_start", ["bcm", "reference_init"])
def test_no_steps_leave_the_base_as_it_is_so_nothing_may_begin_at_random(base: Base, random_start: str) -> None:
    assert resolve_config(base, {"steps": 0}).steps == 0
    with pytest.raises(UsageError, match="steps is 0, which leaves the base as it is"):
        resolve_config(base, {"steps": 0, random_start: True})


def test_a_random_saim_needs_one(base: Base) -> None:
    with pytest.raises(UsageError, match="reference_init begins with a random SAIM, but saim is off"):
        resolve_config(base, {"reference_init": True, "saim": False})


def test_the_papers_preset_counts_before_the_base_and_after_the_user(base: Base) -> None:
    base.card = {"few_shot": {"steps": 400, "lr": 1e-3, "view": "window", "composites": 60, "mask_steps": 80}}
    paper = resolve_config(base, {"preset": "paper"})
    assert (paper.steps, paper.batch, paper.lr, paper.interaction_lr, paper.rank) == (5000, 4, 2e-5, 2e-5, 32)
    assert (paper.resolution, paper.view, paper.composites, paper.early_stop) == (512, "whole", 0, False)
    assert (paper.lora_targets, paper.mask_steps) == ("attention", 80)
    assert resolve_config(base, {"preset": "paper", "bcm": True}).batch == 2
    own = resolve_config(base, {"preset": "paper", "bcm": True, "batch": 3, "steps": 10, "early_stop": True})
    assert (own.batch, own.steps, own.early_stop, own.lr) == (3, 10, True, 2e-5)
    plain = resolve_config(base, {"preset": "base"})
    assert plain == resolve_config(base, {})
    assert (plain.steps, plain.view) == (400, "window")


def test_a_preset_sets_options_that_there_are_to_values_that_they_take() -> None:
    for bcm in (False, True):
        choose(TrainingConfig, "options", training_preset("paper", bcm=bcm))
        choose(SamplingConfig, "options", sampling_preset("paper", bcm=bcm))


def test_an_unknown_preset_is_named_with_the_known_ones(base: Base) -> None:
    with pytest.raises(UsageError, match="preset is 'moon'; it must be 'base' or 'paper'"):
        resolve_config(base, {"preset": "moon"})
    with pytest.raises(UsageError, match="preset is 'moon'; it must be 'base' or 'paper'"):
        resolve_sampling(base, {"preset": "moon"}, has_normals=False)


def test_the_papers_sampling_starts_from_noise_and_guides_as_the_adapter_needs(base: Base) -> None:
    base.card = {"sampling": {"steps": 15, "guidance_scale": 1.5, "sketch_strength": 0.4}}
    paper = resolve_sampling(base, {"preset": "paper"}, has_normals=True)
    assert (paper.steps, paper.guidance_scale, paper.scheduler) == (100, 2.5, "DDIMScheduler")
    assert (paper.anchored, paper.sketch_strength) == (False, 0.0)
    assert resolve_sampling(base, {"preset": "paper"}, has_normals=True, bcm=True).guidance_scale == 2.0
    own = resolve_sampling(base, {"preset": "paper", "steps": 7, "anchored": True}, has_normals=True)
    assert (own.steps, own.anchored, own.guidance_scale) == (7, True, 2.5)
    assert resolve_sampling(base, {}, has_normals=True).guidance_scale == 1.5
