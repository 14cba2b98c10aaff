"""A base made from nothing in miniature: every stage runs, is skipped once done, and the result is a base like any."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file

from model.diffusion.base import FILLING, Base, load_base
from model.diffusion.prompts import tokenize
from model.dualanodiff.config import resolve_config
from model.dualanodiff.model import build_model
from model.dualanodiff.prompts import NO_DEFECT, nested_prompts
from model.masks.networks import load_mask_networks
from model.pretrain import evaluate
from model.pretrain.autoencoder import (
    AutoencoderConfig,
    build_autoencoder,
    draw_pictures,
    fold_latent_statistics,
    reconstruction_loss,
)
from model.pretrain.data import Views, ViewShards, as_pixels
from model.pretrain.evaluate import measure_base, sample_sheet
from model.pretrain.filling import FillingConfig
from model.pretrain.loop import LoopConfig
from model.pretrain.pairs import PairEncoder, PairsConfig
from model.pretrain.presets import PRESETS
from model.pretrain.procedural import render, vocabulary
from model.pretrain.procedural.captions import Shown, caption_pair, rare_captions
from model.pretrain.procedural.dataset import scene_views
from model.pretrain.run import SHARD_BYTES, Stage, pretrain
from model.pretrain.text import build_tokenizer
from service.core.errors import UsageError
from tests.support.tiny_data import drawn_pair

SCENES = 24
SHORT = LoopConfig(steps=2, lr=1e-3, warmup=1, checkpoint_every=1)
MINIATURE = replace(
    PRESETS["cpu"],
    scenes=SCENES,
    render_size=64,
    shard=8,
    first_shards=3,
    pixels=32,
    autoencoder=AutoencoderConfig(widths=(16, 16, 32), batch=2),
    autoencoder_loop=SHORT,
    pairs=PairsConfig(widths=(16, 32), heads=2, batch=2, encode_every=1),
    pairs_loop=SHORT,
    masks=SHORT,
    filling=FillingConfig(rank=2, batch=2),
    filling_loop=SHORT,
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
    assert stages == {"render", "autoencoder", "encode", "pairs", "part masks", "object masks", "assemble", "filling"}
    return folder


@pytest.fixture(scope="module")
def base(work: Path) -> Base:
    return load_base(str(work / "base"))


@pytest.fixture(scope="module")
def shards(work: Path) -> ViewShards:
    return ViewShards(work / "views")


@pytest.fixture(scope="module")
def views(shards: ViewShards) -> Views:
    return shards.shards[0]


def test_it_loads_as_a_base_with_all_extras(work: Path, base: Base) -> None:
    assert (base.resolution, base.factor, base.latent_channels) == (32, 4, 4)
    assert base.scheduler["prediction_type"] == "v_prediction"
    assert base.interaction is not None
    assert base.card["few_shot"] == PRESETS["cpu"].few_shot
    assert base.card["sampling"] == PRESETS["cpu"].sampling
    assert base.filling is not None
    assert {name.partition(".")[0] for name in base.filling} == {"unet", "inpainting", "spatial", "words"}
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
    model = build_model(base, config, "plate", "scratch")
    state = model.denoiser.interaction.state_dict()
    assert base.interaction is not None
    assert all(torch.equal(value, base.interaction[name].float()) for name, value in state.items())


def test_its_card_says_what_went_in(base: Base) -> None:
    assert base.card["samples_rendered"] == SCENES
    assert base.card["pairs_seen_by_unet"] == SHORT.steps * MINIATURE.pairs.batch
    assert base.card["masks_filled"] == SHORT.steps * MINIATURE.filling.batch
    assert base.card["seconds"].keys() <= {"render", "autoencoder", "pairs", "masks"}


def test_no_file_says_where_it_was_made(work: Path) -> None:
    texts = [path.read_text(encoding="utf-8") for path in (work / "base").rglob("*.json")]
    assert not any(str(work) in text for text in texts)


def test_no_file_is_too_large_to_travel(work: Path) -> None:
    assert max(path.stat().st_size for path in (work / "base").rglob("*.safetensors")) <= SHARD_BYTES


def test_what_is_done_is_not_done_again(work: Path) -> None:
    parts = [work / "vae", work / "unet", work / "part.safetensors", work / "object.safetensors"]
    before = [path.stat().st_mtime_ns for path in parts]
    again = list(pretrain(work, MINIATURE, work / "again", stages=MADE))
    assert {progress.stage for progress in again} == {"render", "assemble"}
    assert all(progress.rate >= 0 and progress.completed <= progress.total for progress in again)
    assert (work / "again" / FILLING).read_bytes() == (work / "base" / FILLING).read_bytes()
    assert [path.stat().st_mtime_ns for path in parts] == before
    assert load_base(str(work / "again")).digest == load_base(str(work / "base")).digest


def test_a_stage_without_what_it_needs_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="contains no rendered shards"):
        list(pretrain(tmp_path, MINIATURE, tmp_path / "base", stages=(Stage.AUTOENCODER,)))


def test_it_is_measured_on_procedural_pairs_and_on_photographs(base: Base) -> None:
    measured = measure_base(base, load_mask_networks(base).part, [drawn_pair(0)], 2)
    assert measured["reconstruction_procedural"]["images"] == 2
    assert measured["reconstruction_photographs"]["images"] == 1
    assert measured["mask_iou_procedural"].keys() == {"threshold", "attention", "u2net"}
    assert measured["denoising_photographs"].keys() == measured["denoising_procedural"].keys()
    assert measured["alignment"]["pairs"] == 2
    assert measured["acceptance_from_noise"]["candidates"] == 2
    assert 0 <= measured["acceptance_from_noise"]["accepted"] <= 1
    assert json.dumps(measured)
    assert sample_sheet(base, 2).width > 0


def test_what_has_hardly_any_noise_is_restored_as_well_as_reconstructed(
    base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "DENOISED_TIMESTEPS", (0,))
    pairs = [drawn_pair(number) for number in range(3)]
    found, reconstructed = evaluate.measure_denoising(base, pairs), evaluate.measure_reconstruction(base, pairs)
    assert found["image_0"] == pytest.approx(reconstructed["psnr"], abs=1.5)


def test_latents_have_mean_zero_and_deviation_one(work: Path, views: Views) -> None:
    vae = AutoencoderKL.from_pretrained(work / "vae")
    with torch.no_grad():
        latents = vae.encode(as_pixels(views.images)).latent_dist.mean.transpose(0, 1).flatten(1)
    torch.testing.assert_close(latents.mean(1), torch.zeros(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(latents.std(1), torch.ones(4), atol=1e-3, rtol=0)
    assert vae.config.scaling_factor == 1


def test_folding_the_statistics_changes_no_reconstruction(views: Views) -> None:
    vae = build_autoencoder(MINIATURE.autoencoder, 32).eval()
    pixels = as_pixels(views.images[:4])
    with torch.no_grad():
        before, spread = vae.decode(vae.encode(pixels).latent_dist.mean).sample, vae.encode(pixels).latent_dist.std
        deviation = vae.encode(as_pixels(views.images)).latent_dist.mean.transpose(0, 1).flatten(1).std(1)
        fold_latent_statistics(vae, views.images)
        posterior = vae.encode(pixels).latent_dist
        torch.testing.assert_close(vae.decode(posterior.mean).sample, before, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(posterior.std * deviation[:, None, None], spread, atol=1e-4, rtol=1e-3)


def test_the_autoencoder_sees_images_parts_faultless_parts_and_masks(views: Views) -> None:
    def drawn(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        generator, rng = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
        return draw_pictures(views, torch.full((64,), 3), generator, rng)

    (pixels, masks), (again, _), (other, _) = drawn(0), drawn(0), drawn(1)
    assert pixels.shape == (64, 3, 32, 32)
    assert masks.unique().tolist() == [0, 1]
    # One view, turned alike for the whole batch: its four pictures are all that there is.
    assert len(pixels.flatten(1).unique(dim=0)) == 4
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


def test_every_scene_is_shown_close_and_wider_about_its_defect() -> None:
    sample = render(3, 64)
    close, wider = scene_views(sample, 32, np.random.default_rng(0))
    rows, columns = np.mgrid[:33, :33]
    places = [np.s_[y : y + 32, x : x + 32] for y, x in zip(rows.ravel(), columns.ravel(), strict=True)]
    found = [place for place in places if np.array_equal(sample.image[place], close.image)]
    assert any(np.array_equal(sample.mask[place], close.mask) for place in found)
    assert any(np.array_equal(sample.normal[place], close.normal) for place in found)
    for view in (close, wider):
        assert view.image.shape == (32, 32, 3)
        assert view.mask.any()


def test_wider_views_are_of_all_scales() -> None:
    white = replace(render(3, 64), mask=np.ones((64, 64), np.bool_))
    ramp = np.repeat(np.arange(64, dtype=np.uint8)[None, :, None] * 2, 64, axis=0).repeat(3, axis=2)
    sample = replace(white, image=ramp)
    slopes = [np.ptp(scene_views(sample, 32, np.random.default_rng(seed))[1].image[:, :, 0]) for seed in range(40)]
    assert min(slopes) < 75
    assert max(slopes) > 110


def test_pairs_are_encoded_branch_by_branch(work: Path, views: Views) -> None:
    vae = AutoencoderKL.from_pretrained(work / "vae")
    encoded = encoder(work, work / "encoded", vae).encoded[0]
    assert encoded.latents.shape == (2, len(views), 4, 8, 8)
    assert encoded.tokens.shape == encoded.rare_tokens.shape == (2, len(views), 32)
    shares = encoded.masks.float().mean((1, 2, 3))
    defective = int(torch.nonzero((shares - views.masks.float().mean((1, 2))).abs() < 1e-3)[0])
    chosen = torch.tensor([defective])
    for branch, pictures in enumerate((views.images[chosen], views.parts(chosen))):
        with torch.no_grad():
            latent = vae.encode(as_pixels(pictures)).latent_dist.mean[0]
        assert (encoded.latents[branch, defective].float() - latent).abs().mean() < 0.05


def test_masks_as_pictures_and_faultless_parts_are_encoded_with_the_part_that_belongs_to_them(
    work: Path, views: Views, tmp_path: Path
) -> None:
    vae = AutoencoderKL.from_pretrained(work / "vae")

    def first(**shares: float) -> tuple[torch.Tensor, torch.Tensor]:
        made = encoder(work, tmp_path / str(shares), vae, **shares)
        while not made.encoded:
            made.encode_some()
        return made.encoded[0].latents.float(), made.encoded[0].masks

    def latents_of(pictures: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return vae.encode(as_pixels(pictures)).latent_dist.mean

    every = torch.arange(len(views))
    (images, parts), masks = first(mask_share=1.0, good_share=0.0)
    assert (images - latents_of(views.mask_pictures(every))).abs().mean() < 0.05
    assert (parts - latents_of(views.parts(every))).abs().mean() < 0.05
    assert masks.any((1, 2, 3)).all()
    (images, parts), masks = first(mask_share=0.0, good_share=1.0)
    assert (images - latents_of(views.normals)).abs().mean() < 0.05
    assert (parts - parts[:1]).abs().max() < 0.05
    assert not masks.any()


def test_an_encoder_goes_on_where_another_stopped_and_takes_in_new_shards(work: Path, tmp_path: Path) -> None:
    vae = AutoencoderKL.from_pretrained(work / "vae")
    (tmp_path / "views").mkdir()
    paths = sorted((work / "views").glob("*.safetensors"))
    shutil.copy(paths[0], tmp_path / "views")
    one = PairEncoder(vae, build_tokenizer(vocabulary()), tmp_path / "views", tmp_path / "encoded", MINIATURE.pairs)
    while one.encode_some():
        pass
    assert len(one.encoded) == 1
    shutil.copy(paths[1], tmp_path / "views")
    other = PairEncoder(vae, build_tokenizer(vocabulary()), tmp_path / "views", tmp_path / "encoded", MINIATURE.pairs)
    assert len(other.encoded) == 1
    while other.encode_some():
        pass
    assert len(other.encoded) == 2
    assert torch.equal(other.encoded[0].latents, one.encoded[0].latents)


def test_every_caption_and_the_rare_prompts_are_known_words() -> None:
    tokenizer = build_tokenizer(vocabulary())
    rng = np.random.default_rng(0)
    samples = [render(seed, 32) for seed in range(100)]
    texts = [
        text for s in samples for shown in Shown for text in caption_pair(rng, s.object_name, s.defect_name, shown)
    ]
    texts += [sample.caption for sample in samples]
    texts += [text for shown in Shown for text in rare_captions(shown)]
    assert tokenizer.unk_token_id not in tokenize(tokenizer, [*texts, *nested_prompts("", "", "rare"), "anomaly"])
    # Room for the sixteen vectors of a mask beside the words of any caption.
    assert (tokenize(tokenizer, texts) != tokenizer.pad_token_id).sum(1).max() + 16 <= tokenizer.model_max_length


def test_both_captions_of_a_pair_use_the_same_word_for_the_defect() -> None:
    rng = np.random.default_rng(0)
    captions = [caption_pair(rng, "magnet tile", "fiber", Shown.DEFECT) for _ in range(200)]
    words = {part for _, part in captions}
    assert words >= {"fiber", "anomaly"}
    assert all(
        part in whole or part in {"fiber", "anomaly", "defect", "flaw", "damage", "fault"} for whole, part in captions
    )
    good = [caption_pair(rng, "magnet tile", "fiber", Shown.GOOD) for _ in range(50)]
    assert {part for _, part in good} == {NO_DEFECT}
    assert not any("fiber" in whole for whole, _ in good)


def test_a_base_is_gone_on_from(work: Path, tmp_path: Path) -> None:
    made = list(pretrain(tmp_path, MINIATURE, tmp_path / "base", stages=MADE, start=work / "base"))
    assert {progress.stage for progress in made} == {"render", "autoencoder", "encode", "pairs", "assemble", "filling"}
    card, before = (json.loads((folder / "base" / "card.json").read_text()) for folder in (tmp_path, work))
    for counted in ("samples_rendered", "crops_seen_by_autoencoder", "pairs_seen_by_unet", "masks_filled"):
        assert card[counted] == 2 * before[counted]
    # Other scenes than those that the first run saw.
    names = [{path.name for path in (folder / "views").iterdir()} for folder in (tmp_path, work)]
    assert not names[0] & names[1]
    for part in ("part", "object"):
        networks = [folder / "base" / "u2net" / f"{part}.safetensors" for folder in (tmp_path, work)]
        assert networks[0].read_bytes() == networks[1].read_bytes()
    first, second = (AutoencoderKL.from_pretrained(folder / "base" / "vae").state_dict() for folder in (tmp_path, work))
    changed = {name.split(".")[0] for name in first if not torch.equal(first[name], second[name])}
    assert changed == {"decoder", "post_quant_conv"}
    unets = [UNet2DConditionModel.from_pretrained(folder / "base" / "unet") for folder in (tmp_path, work)]
    first, second = (unet.state_dict() for unet in unets)
    largest = max(float((first[name] - second[name]).abs().max()) for name in first)
    # Two steps from where the other ended, not from new weights.
    assert 0 < largest < 0.02
    first, second = (load_file(folder / "base" / FILLING) for folder in (tmp_path, work))
    assert max(float((first[name].float() - second[name].float()).abs().max()) for name in first) < 0.02


def test_a_base_with_another_vocabulary_is_not_gone_on_from(work: Path, tmp_path: Path) -> None:
    shutil.copytree(work / "base", tmp_path / "other")
    build_tokenizer(["plate", "scratch"]).save_pretrained(tmp_path / "other" / "tokenizer")
    with pytest.raises(UsageError, match="has another vocabulary"):
        list(pretrain(tmp_path / "work", MINIATURE, tmp_path / "base", start=tmp_path / "other"))
    assert not (tmp_path / "work" / "vae").exists()


def test_a_work_folder_belongs_to_one_run(work: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did not start from a base"):
        next(pretrain(work, MINIATURE, tmp_path / "base", start=work / "base"))
    shutil.copytree(work / "base", tmp_path / "work" / "start")
    shutil.copytree(work / "base", tmp_path / "other")
    (tmp_path / "other" / "tokenizer" / "more.json").write_text("{}")
    with pytest.raises(UsageError, match="continues another base"):
        next(pretrain(tmp_path / "work", MINIATURE, tmp_path / "base", start=tmp_path / "other"))


def test_minutes_are_shared_out_and_a_started_run_gives_none_to_mask_networks() -> None:
    for preset in PRESETS.values():
        whole, started = preset.lasting(10), preset.lasting(10, started=True)
        masks = (whole.masks, whole.masks)
        loops = [whole.autoencoder_loop, whole.pairs_loop, *masks, whole.filling_loop]
        assert 450 < seconds(loops) < 600
        assert started.autoencoder_loop.seconds == whole.autoencoder_loop.seconds
        again = [started.autoencoder_loop, started.pairs_loop, started.filling_loop]
        assert seconds(again) == pytest.approx(seconds(loops))


def seconds(loops: Sequence[LoopConfig]) -> float:
    return sum(loop.seconds or 0.0 for loop in loops)


def encoder(work: Path, folder: Path, vae: AutoencoderKL, **shares: float) -> PairEncoder:
    config = replace(MINIATURE.pairs, **shares)
    return PairEncoder(vae, build_tokenizer(vocabulary()), work / "views", folder, config)
