"""Re-weighting: attention and push rise where a defect is still faint, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from model.anomalydiffusion.model import build_model, unet_for_sampling
from model.anomalydiffusion.reweighting import WEIGHTS, Reweighting, attention_weights, faint_gains
from model.diffusion.base import Base, load_base
from tests.support.tiny_anomaly import awaken, tiny_config


@pytest.fixture(scope="module")
def base(tiny_base: Path) -> Base:
    return load_base(str(tiny_base))


def test_weights_rise_where_the_defect_is_still_faint() -> None:
    mask = torch.zeros(1, 8, 8)
    mask[:, 2:6, 2:6] = 1
    normal, clean = torch.zeros(4, 8, 8), torch.zeros(4, 8, 8)
    clean[:, 2:6, 2:4] = 2.0  # the left half of the mask differs, the right half looks as the normal still
    clean[:, 0, 0] = 5.0
    weights = attention_weights(clean, normal, mask)
    assert (weights[:, 2:6, 4:6] > weights[:, 2:6, 2:4].max() + 0.1).all()
    assert weights.min() >= WEIGHTS[0]
    assert weights.max() <= WEIGHTS[1]
    assert (weights[mask == 0] == 1).all()


def test_an_even_defect_is_weighed_evenly() -> None:
    mask = torch.ones(1, 4, 4)
    torch.testing.assert_close(attention_weights(torch.ones(4, 4, 4), torch.zeros(4, 4, 4), mask), mask)
    assert torch.equal(attention_weights(torch.ones(4, 4, 4), torch.zeros(4, 4, 4), 0 * mask), mask)


def test_gains_make_up_for_what_faint_places_lack() -> None:
    mask = torch.zeros(1, 8, 40)
    mask[:, 3:5] = 1
    normal, clean = torch.zeros(4, 8, 40), torch.ones(4, 8, 40)
    clean[..., 30:36] = 0.6
    clean[..., 36:] = 0.1
    gains = faint_gains(clean, normal, mask, 3.0)
    assert (gains[:, 3:5, :27] == 1).all()
    torch.testing.assert_close(gains[:, 3:5, 32:34], torch.full((1, 2, 2), 1 / 0.6), atol=1e-5, rtol=1e-5)
    assert (gains[:, 3:5, 38:] == 3).all()


def test_a_wide_defect_may_differ_from_place_to_place() -> None:
    mask = torch.zeros(1, 16, 40)
    mask[:, 4:12, 4:20] = 1
    mask[:, 7:9, 20:36] = 1
    clean = torch.ones(4, 16, 40)
    clean[..., :10] = clean[..., 30:] = 0.1
    gains = faint_gains(clean, torch.zeros(4, 16, 40), mask, 3.0)
    assert (gains[:, 4:12, 4:20] == 1).all()
    assert (gains[:, 7:9, 33:36] == 3).all()
    assert (gains[mask == 0] == 1).all()


def test_a_stroke_may_lie_along_the_border() -> None:
    mask = torch.zeros(1, 16, 40)
    mask[:, :4] = 1
    clean = torch.ones(4, 16, 40)
    clean[..., 30:] = 0.1
    assert (faint_gains(clean, torch.zeros(4, 16, 40), mask, 3.0)[:, :4, 33:] == 3).all()


def test_an_even_defect_and_one_of_a_single_cell_are_pushed_alike() -> None:
    point = torch.zeros(1, 8, 8)
    point[0, 2, 2] = 1
    for mask in (torch.ones_like(point), point, torch.zeros_like(point)):
        gains = faint_gains(torch.ones(4, 8, 8), torch.zeros(4, 8, 8), mask, 3.0)
        torch.testing.assert_close(gains[mask > 0], torch.ones_like(gains[mask > 0]))
    assert faint_gains(torch.zeros(4, 8, 8), torch.zeros(4, 8, 8), point, 3.0).isfinite().all()


def test_the_prepared_unet_predicts_as_the_trained_one_and_weights_change_it(base: Base) -> None:
    model = build_model(base, tiny_config(lora_targets="all"), ["crack"])
    awaken(model)
    model.networks().eval()
    prepared = unet_for_sampling(model, torch.float32)
    generator = torch.Generator().manual_seed(0)
    latents, text = torch.randn((2, 4, 8, 8), generator=generator), torch.randn((2, 16, 32), generator=generator)

    def predicted(weights: torch.Tensor | None) -> torch.Tensor:
        run = None if weights is None else Reweighting(weights, model.anomaly_words)
        output: torch.Tensor = prepared(latents, 400, text, cross_attention_kwargs={"reweighting": run}).sample
        return output

    with torch.no_grad():
        plain = predicted(None)
        torch.testing.assert_close(plain, model.unet(latents, 400, text).sample, atol=1e-4, rtol=1e-4)
        even = torch.ones(2, 1, 8, 8)
        torch.testing.assert_close(predicted(even), plain, atol=1e-5, rtol=1e-5)
        assert (predicted(1.5 * even) - plain).abs().max() > 1e-4
