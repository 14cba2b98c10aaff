"""A base made from nothing in miniature: every stage runs, is skipped once done, and the result is a base like any."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline

from model.base import Base, load_base
from model.config import resolve_config
from model.network import build_pair_model
from model.pipeline import load_mask_networks
from model.pixels import to_pixels
from model.pretrain.autoencoder import (
    AutoencoderConfig,
    build_autoencoder,
    draw_crops,
    fold_latent_statistics,
    reconstruction_loss,
)
from model.pretrain.data import ProceduralSet, load_samples, square_views
from model.pretrain.evaluate import measure_base, sample_sheet
from model.pretrain.loop import LoopConfig
from model.pretrain.pairs import PairsConfig, encode_pairs
from model.pretrain.presets import PRESETS
from model.pretrain.procedural import vocabulary
from model.pretrain.run import SHARD_BYTES, Stage, pretrain
from model.pretrain.text import build_tokenizer
from model.text import nested_prompts, tokenize
from model.types import anomaly_part
from service.core.errors import UsageError
from tests.tiny_data import drawn_pair

SAMPLES = 24
SHORT = LoopConfig(steps=2, lr=1e-3, warmup=1, checkpoint_every=1)
MINIATURE = replace(
    PRESETS["cpu"],
    samples=SAMPLES,
    render_size=64,
    pixels=32,
    autoencoder=AutoencoderConfig(widths=(16, 16, 32), crop=32, batch=2),
    autoencoder_loop=SHORT,
    pairs=PairsConfig(widths=(16, 32), heads=2, batch=2),
    pairs_loop=SHORT,
    masks=SHORT,
    text_width=16,
    text_layers=1,
)
MADE = tuple(stage for stage in Stage if stage is not Stage.MEASURE)
"""Measuring takes longer than all this; it is tested by its parts."""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work folder of a finished pretraining, with the base in `base`."""
    folder = tmp_path_factory.mktemp("pretraining")
    stages = {progress.stage for progress in pretrain(folder, MINIATURE, folder / "base", stages=MADE)}
    assert stages == {"render", "autoencoder", "encode", "pairs", "part masks", "object masks", "assemble"}
    return folder


@pytest.fixture(scope="module")
def base(work: Path) -> Base:
    return load_base(str(work / "base"))


@pytest.fixture(scope="module")
def samples(work: Path) -> ProceduralSet:
    return load_samples(work / "shards", SAMPLES)


def test_it_loads_as_a_base_with_all_extras(work: Path, base: Base) -> None:
    assert (base.resolution, base.factor, base.latent_channels) == (32, 4, 4)
    assert base.scheduler["prediction_type"] == "v_prediction"
    assert base.interaction is not None
    assert base.few_shot == PRESETS["cpu"].few_shot
    assert base.sampling == PRESETS["cpu"].sampling
    networks = load_mask_networks(base)
    assert networks.part is not None
    assert networks.object is not None
    assert not (work / ".base.part").exists()


def test_it_loads_as_a_pipeline_and_draws(work: Path) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(work / "base")
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline("a scratched plate", num_inference_steps=2, output_type="np").images
    assert image.shape == (1, 32, 32, 3)


def test_adapters_train_on_it_with_its_recommended_settings(base: Base) -> None:
    config = resolve_config(base, {"steps": 1, "views": 1})
    assert config.lora_targets == "all"
    model = build_pair_model(base, config, "plate", "scratch")
    state = model.denoiser.interaction.state_dict()
    assert base.interaction is not None
    assert all(torch.equal(value, base.interaction[name].float()) for name, value in state.items())


def test_its_card_says_what_went_in(base: Base) -> None:
    assert base.card["samples_rendered"] == SAMPLES
    assert base.card["pairs_seen_by_unet"] == SHORT.steps * MINIATURE.pairs.batch
    assert base.card["seconds"].keys() <= {"render", "autoencoder", "pairs", "masks"}


def test_no_file_is_too_large_to_travel(work: Path) -> None:
    assert max(path.stat().st_size for path in (work / "base").rglob("*.safetensors")) <= SHARD_BYTES


def test_what_is_done_is_not_done_again(work: Path) -> None:
    parts = [work / "vae", work / "unet", work / "part.safetensors", work / "object.safetensors"]
    before = [path.stat().st_mtime_ns for path in parts]
    again = [progress.stage for progress in pretrain(work, MINIATURE, work / "again", stages=MADE)]
    assert set(again) == {"render", "assemble"}
    assert [path.stat().st_mtime_ns for path in parts] == before
    assert load_base(str(work / "again")).digest == load_base(str(work / "base")).digest


def test_a_stage_without_what_it_needs_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no rendered shards"):
        list(pretrain(tmp_path, MINIATURE, tmp_path / "base", stages=(Stage.AUTOENCODER,)))


def test_it_is_measured_on_procedural_pairs_and_on_photographs(base: Base) -> None:
    measured = measure_base(base, load_mask_networks(base).part, [drawn_pair(0)], 2)
    assert measured["reconstruction_procedural"]["images"] == 2
    assert measured["reconstruction_photographs"]["images"] == 1
    assert measured["mask_iou_procedural"].keys() == {"threshold", "attention", "u2net"}
    assert measured["alignment"]["pairs"] == 2
    assert json.dumps(measured)
    assert sample_sheet(base, 2).width > 0


def test_latents_have_mean_zero_and_deviation_one(work: Path, samples: ProceduralSet) -> None:
    vae = AutoencoderKL.from_pretrained(work / "vae")
    with torch.no_grad():
        latents = vae.encode(to_pixels(samples.images)).latent_dist.mean.transpose(0, 1).flatten(1)
    torch.testing.assert_close(latents.mean(1), torch.zeros(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(latents.std(1), torch.ones(4), atol=1e-3, rtol=0)
    assert vae.config.scaling_factor == 1


def test_folding_the_statistics_changes_no_reconstruction(samples: ProceduralSet) -> None:
    vae = build_autoencoder(MINIATURE.autoencoder, 32).eval()
    pixels = to_pixels(samples.images[:4])
    with torch.no_grad():
        before, spread = vae.decode(vae.encode(pixels).latent_dist.mean).sample, vae.encode(pixels).latent_dist.std
        deviation = vae.encode(to_pixels(samples.images)).latent_dist.mean.transpose(0, 1).flatten(1).std(1)
        fold_latent_statistics(vae, samples)
        posterior = vae.encode(pixels).latent_dist
        torch.testing.assert_close(vae.decode(posterior.mean).sample, before, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(posterior.std * deviation[:, None, None], spread, atol=1e-4, rtol=1e-3)


def test_crops_show_samples_and_their_masks(samples: ProceduralSet) -> None:
    draws = [draw_crops(samples, 32, 32, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    (pixels, masks), (again, _), (other, _) = draws
    assert pixels.shape == (32, 3, 32, 32)
    assert masks.shape == (32, 1, 32, 32)
    assert masks.unique().tolist() == [0, 1]
    assert (masks.flatten(1).amax(1) > 0).float().mean() > 0.7
    assert torch.equal(pixels, again)
    assert not torch.equal(pixels, other)


def test_a_perfect_reconstruction_costs_nothing_and_errors_in_defects_cost_more() -> None:
    pixels, masks = torch.zeros(1, 3, 16, 16), torch.zeros(1, 1, 16, 16)
    masks[..., :4, :4] = 1
    inside, outside = pixels + 0.5 * masks, pixels + 0.5 * masks.flip(2, 3)
    assert reconstruction_loss(pixels, pixels, masks, 1.0) == 0
    assert reconstruction_loss(inside, pixels, masks, 1.0) > reconstruction_loss(outside, pixels, masks, 1.0)


def test_a_colour_that_is_off_costs_more_than_a_brightness() -> None:
    pixels, masks = torch.zeros(1, 3, 16, 16), torch.zeros(1, 1, 16, 16)
    reddish = torch.tensor([0.3, 0.0, 0.0]).view(1, 3, 1, 1) + pixels
    losses = [float(reconstruction_loss(reddish, pixels, masks, weight)) for weight in (0.0, 1.0)]
    assert losses[1] > losses[0] > float(reconstruction_loss(pixels + 0.1, pixels, masks, 1.0))


def test_square_views_show_every_sample_whole_and_close(samples: ProceduralSet) -> None:
    views = square_views(samples, 32)
    assert len(views) == 2 * len(samples)
    assert views.images.shape[1:] == (32, 32, 3)
    assert views.masks.any((1, 2)).all()
    shrunk = samples.images[3].reshape(32, 2, 32, 2, 3).mean((1, 3))
    assert np.abs(views.images[6] - shrunk).max() <= 0.5
    assert views.captions[6] == views.captions[7] == samples.captions[3]
    rows, columns = np.mgrid[:33, :33]
    places = [np.s_[y : y + 32, x : x + 32] for y, x in zip(rows.ravel(), columns.ravel(), strict=True)]
    found = [place for place in places if np.array_equal(samples.images[3][place], views.images[7])]
    assert any(np.array_equal(samples.masks[3][place], views.masks[7]) for place in found)


def test_pairs_are_encoded_branch_by_branch(work: Path, samples: ProceduralSet) -> None:
    vae, tokenizer, views = (
        AutoencoderKL.from_pretrained(work / "vae"),
        build_tokenizer(vocabulary()),
        square_views(samples, 32),
    )
    job = encode_pairs(vae, tokenizer, views)
    while True:
        try:
            next(job)
        except StopIteration as end:
            encoded = end.value
            break
    assert encoded.latents.shape == (2, 2 * SAMPLES, 4, 8, 8)
    assert encoded.tokens.shape == (2, 2 * SAMPLES, 16)
    for branch, picture in enumerate((views.images[5], anomaly_part(views.images[5], views.masks[5]))):
        with torch.no_grad():
            latent = vae.encode(to_pixels([picture])).latent_dist.mean[0]
        assert (encoded.latents[branch, 5].float() - latent).abs().mean() < 0.05
    shares = encoded.masks.float().mean((1, 2, 3))
    torch.testing.assert_close(shares, torch.from_numpy(views.masks.mean((1, 2))).float(), atol=1e-3, rtol=1e-2)


def test_every_caption_and_the_rare_prompts_are_known_words(samples: ProceduralSet) -> None:
    tokenizer = build_tokenizer(vocabulary())
    texts = [*samples.captions, *samples.part_captions, *nested_prompts("", "", "rare")]
    assert tokenizer.unk_token_id not in tokenize(tokenizer, texts)
