from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from model.diffusion.noise_schedule import NoiseSchedule, draw_timesteps
from model.dualanodiff.loss import pair_loss
from service.core.errors import UsageError

SHAPE = (2, 6, 4, 3, 3)
TIMESTEPS = torch.tensor([0, 1, 250, 500, 900, 998])


def configuration(prediction_type: str, *, zero_snr: bool = False) -> dict[str, Any]:
    scheduler = DDPMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type=prediction_type,
        rescale_betas_zero_snr=zero_snr,
    )
    return dict(scheduler.config)


def drawn(seed: int) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("zero_snr", [False, True])
def test_noising_and_velocity_are_diffusers_own(*, zero_snr: bool) -> None:
    config = configuration("v_prediction", zero_snr=zero_snr)
    schedule, theirs = NoiseSchedule.from_config(config), DDPMScheduler.from_config(config)
    latents, noise = drawn(0), drawn(1)
    noisy, target = schedule.add_noise(latents, noise, TIMESTEPS), schedule.target(latents, noise, TIMESTEPS)
    for branch in (0, 1):
        both = latents[branch], noise[branch], TIMESTEPS
        torch.testing.assert_close(noisy[branch], theirs.add_noise(*both))
        torch.testing.assert_close(target[branch], theirs.get_velocity(*both))


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_a_right_prediction_implies_the_clean_latents_and_back(prediction_type: str) -> None:
    schedule = NoiseSchedule.from_config(configuration(prediction_type))
    latents, noise = drawn(0), drawn(1)
    noisy, target = schedule.add_noise(latents, noise, TIMESTEPS), schedule.target(latents, noise, TIMESTEPS)
    torch.testing.assert_close(schedule.predict_clean(noisy, target, TIMESTEPS), latents, atol=1e-4, rtol=1e-4)
    # At the first timesteps a prediction of the noise divides by hardly any noise.
    torch.testing.assert_close(schedule.prediction_of(noisy, latents, TIMESTEPS), target, atol=1e-4, rtol=1e-4)


def test_pure_noise_at_zero_terminal_snr_still_implies_clean_latents() -> None:
    schedule = NoiseSchedule.from_config(configuration("v_prediction", zero_snr=True))
    latents, noise = drawn(0), drawn(1)
    final = torch.full((SHAPE[1],), schedule.steps - 1)
    noisy, target = schedule.add_noise(latents, noise, final), schedule.target(latents, noise, final)
    assert torch.equal(noisy, noise)
    torch.testing.assert_close(schedule.predict_clean(noisy, target, final), latents)


def test_targets_are_noise_and_clean_latents_where_the_base_predicts_these() -> None:
    latents, noise = drawn(0), drawn(1)
    for prediction_type, target in (("epsilon", noise), ("sample", latents)):
        schedule = NoiseSchedule.from_config(configuration(prediction_type))
        assert torch.equal(schedule.target(latents, noise, TIMESTEPS), target)


def test_a_base_that_predicts_something_else_is_refused_by_name() -> None:
    config = configuration("epsilon") | {"prediction_type": "flow"}
    with pytest.raises(UsageError, match="'flow'"):
        NoiseSchedule.from_config(config)


def test_the_loss_is_the_sum_of_both_branches_mean_squared_errors() -> None:
    prediction, target = drawn(0), drawn(1)
    squares = (prediction - target).square()
    torch.testing.assert_close(pair_loss(prediction, target), squares[0].mean() + squares[1].mean())
    assert pair_loss(target, target) == 0


def test_errors_in_a_small_defect_weigh_as_much_as_in_a_large_one() -> None:
    target = torch.zeros(SHAPE)
    losses = []
    for cells in (1, 4):
        masks = torch.zeros(SHAPE[1], 1, 3, 3)
        masks.view(SHAPE[1], -1)[:, :cells] = 1
        wrong_inside = masks.expand(2, -1, 4, -1, -1).reshape(SHAPE)
        extra = pair_loss(wrong_inside, target, masks, 0.5) - pair_loss(wrong_inside, target, masks)
        losses.append(extra)
    torch.testing.assert_close(torch.stack(losses), torch.ones(2))


@given(count=st.integers(1, 64), steps=st.integers(1, 1000), seed=st.integers(0, 1000))
def test_timesteps_of_a_batch_lie_one_in_each_band(count: int, steps: int, seed: int) -> None:
    drawn_steps = draw_timesteps(count, steps, torch.Generator().manual_seed(seed)).sort().values
    low = (torch.arange(count) * steps / count).floor()
    high = ((torch.arange(count) + 1) * steps / count).floor().clamp_max(steps - 1)
    assert ((low <= drawn_steps) & (drawn_steps <= high)).all()


def test_every_place_of_a_batch_meets_early_and_late_timesteps() -> None:
    generator = torch.Generator().manual_seed(0)
    batches = torch.stack([draw_timesteps(4, 1000, generator) for _ in range(200)]).float()
    assert (batches.mean(0) - 500).abs().max() < 80
