"""The whole pretraining as one resumable command: render, autoencoder, pairs, mask networks, and the assembled base.

Every stage keeps its state in the work folder and is skipped once done, so the command may be stopped at any moment
and given again; it may also be given stage by stage, for a GPU that is lent for minutes at a time.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, PreTrainedTokenizerFast

from model.base import load_base
from model.denoiser import TwoBranchDenoiser
from model.objective import NoiseSchedule
from model.pretrain.autoencoder import build_autoencoder, fold_latent_statistics, train_autoencoder
from model.pretrain.data import load_samples, square_views
from model.pretrain.evaluate import measure_base, sample_sheet
from model.pretrain.pairs import EncodedPairs, build_unet, encode_pairs, train_pairs
from model.pretrain.presets import Preset
from model.pretrain.procedural import vocabulary
from model.pretrain.procedural.dataset import render_shards
from model.pretrain.segmentation import SegmentationConfig, Subject, build_segmentation, train_segmentation
from model.pretrain.text import build_text_encoder, build_tokenizer
from model.progress import Meter, Progress
from model.types import Pair
from model.u2net import load_u2net, save_u2net

SHARD_BYTES = 15 * 2**20
"""Largest safetensors file of a base, so that it travels where single files are limited."""

SKIPPED_SECONDS = 2.0
"""A stage that took less found its work done."""

MEASURED_PAIRS = 64
"""Held-out pairs, and samples, that the figures in the card are means over."""

SCHEDULER = {
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
    "steps_offset": 1,
    "clip_sample": False,
}
"""Stable Diffusion's noise schedule with zero terminal SNR, which a mid-grey background needs: with the original one
the last timestep still shows the mean of the picture."""


class Stage(StrEnum):
    """The stages, in order."""

    RENDER = "render"
    AUTOENCODER = "autoencoder"
    PAIRS = "pairs"
    MASKS = "masks"
    ASSEMBLE = "assemble"
    MEASURE = "measure"


def pretrain(
    work: Path,
    preset: Preset,
    target: Path,
    *,
    device: str = "cpu",
    stages: Sequence[Stage] = tuple(Stage),
    photographs: Sequence[Pair] = (),
) -> Iterator[Progress]:
    """Make a base from nothing but this package.

    Args:
        work: where shards, checkpoints and finished parts live.
        preset: all sizes.
        target: folder of the finished base; replaced when it exists.
        device: "cpu" or "cuda".
        stages: those to do now; what they need from earlier ones must be there.
        photographs: real pairs on which the finished base is measured; nothing is trained on them.
    """
    work.mkdir(parents=True, exist_ok=True)
    for stage in Stage:
        if stage not in stages:
            continue
        began = time.monotonic()
        try:
            if stage is Stage.MEASURE:
                measure(target, photographs, device)
                yield Progress("measure", 1, 1, "bases")
            else:
                yield from _run_stage(stage, work, preset, target, device)
        finally:
            _add_time(work, stage, time.monotonic() - began, device)


def _run_stage(stage: Stage, work: Path, preset: Preset, target: Path, device: str) -> Iterator[Progress]:
    match stage:
        case Stage.RENDER:
            meter = Meter("render", preset.samples, "samples")
            for done in render_shards(work / "shards", 0, preset.samples, preset.render_size, os.cpu_count() or 1):
                yield meter.report(done)
        case Stage.AUTOENCODER:
            yield from _autoencoder(work, preset, device)
        case Stage.PAIRS:
            yield from _pairs(work, preset, device)
        case Stage.MASKS:
            yield from _masks(work, preset, device)
        case Stage.ASSEMBLE:
            assemble(work, preset, target)
            yield Progress("assemble", 1, 1, "bases")


def _autoencoder(work: Path, preset: Preset, device: str) -> Iterator[Progress]:
    if (work / "vae").is_dir():
        return
    samples = load_samples(work / "shards", preset.samples)
    vae = build_autoencoder(preset.autoencoder, preset.pixels).to(device)
    yield from train_autoencoder(vae, samples, work / "autoencoder", preset.autoencoder, preset.autoencoder_loop)
    fold_latent_statistics(vae, samples)
    _save_aside(vae, work / "vae")


def _pairs(work: Path, preset: Preset, device: str) -> Iterator[Progress]:
    if (work / "unet").is_dir():
        return
    vae = AutoencoderKL.from_pretrained(work / "vae").to(device)
    tokenizer = build_tokenizer(vocabulary())
    encoded_file = work / "encoded.safetensors"
    if not encoded_file.is_file():
        views = square_views(load_samples(work / "shards", preset.samples), preset.pixels)
        latents = yield from encode_pairs(vae, tokenizer, views)
        aside = work / ".encoded.part"
        save_file({"latents": latents.latents, "masks": latents.masks, "tokens": latents.tokens}, aside)
        aside.rename(encoded_file)
    encoded = EncodedPairs(**load_file(encoded_file))
    denoiser, text_encoder = build_networks(preset, tokenizer, vae)
    denoiser.to(device)
    text_encoder.to(device)
    schedule = NoiseSchedule.from_config(SCHEDULER)
    yield from train_pairs(
        denoiser, text_encoder, tokenizer, encoded, schedule, work / "pairs", preset.pairs, preset.pairs_loop
    )
    save_networks(work, denoiser, text_encoder, tokenizer)


def build_networks(
    preset: Preset, tokenizer: PreTrainedTokenizerFast, vae: AutoencoderKL
) -> tuple[TwoBranchDenoiser, CLIPTextModel]:
    """U-Net with SAIM, and text encoder, with fresh weights."""
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    unet = build_unet(preset.pairs, vae.config.latent_channels, preset.pixels // factor, preset.text_width)
    denoiser = TwoBranchDenoiser.fresh(unet, with_background=False)
    return denoiser, build_text_encoder(len(tokenizer), preset.text_width, preset.text_layers, preset.pairs.seed)


def save_networks(
    work: Path, denoiser: TwoBranchDenoiser, text_encoder: CLIPTextModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Finished parts in the work folder; the U-Net last, its presence means that all are there."""
    text_encoder.save_pretrained(work / "text_encoder")
    tokenizer.save_pretrained(work / "tokenizer")
    save_file(
        {name: tensor.contiguous().cpu() for name, tensor in denoiser.interaction.state_dict().items()},
        work / "interaction.safetensors",
    )
    _save_aside(denoiser.unet, work / "unet")


def _masks(work: Path, preset: Preset, device: str) -> Iterator[Progress]:
    vae = AutoencoderKL.from_pretrained(work / "vae").to(device).eval()
    for subject in Subject:
        finished = work / f"{subject}.safetensors"
        if finished.is_file():
            continue
        samples = square_views(load_samples(work / "shards", preset.samples), preset.pixels)
        config = SegmentationConfig(subject, held_out=min(128, len(samples) // 8))
        net = build_segmentation(config).to(device)
        yield from train_segmentation(net, samples, work / f"masks-{subject}", config, preset.masks, vae)
        aside = finished.with_suffix(".part.safetensors")
        save_u2net(net, aside)
        aside.rename(finished)


def assemble(work: Path, preset: Preset, target: Path) -> None:
    """Put the finished parts together as a base in half precision, with the card begun."""
    aside = target.with_name(f".{target.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    AutoencoderKL.from_pretrained(work / "vae").half().save_pretrained(aside / "vae", max_shard_size=SHARD_BYTES)
    UNet2DConditionModel.from_pretrained(work / "unet").half().save_pretrained(
        aside / "unet", max_shard_size=SHARD_BYTES
    )
    # In full precision: transformers loads what it finds, and next to a U-Net, which loads in full, half would not fit.
    CLIPTextModel.from_pretrained(work / "text_encoder").save_pretrained(aside / "text_encoder")
    shutil.copytree(work / "tokenizer", aside / "tokenizer")
    DDPMScheduler.from_config(SCHEDULER).save_pretrained(aside / "scheduler")
    for folder in ("interaction", "u2net"):
        (aside / folder).mkdir()
    interaction = load_file(work / "interaction.safetensors")
    save_file(
        {name: tensor.half() for name, tensor in interaction.items()}, aside / "interaction" / "interaction.safetensors"
    )
    for subject in Subject:
        if (work / f"{subject}.safetensors").is_file():
            save_u2net(
                load_u2net(work / f"{subject}.safetensors"), aside / "u2net" / f"{subject}.safetensors", half=True
            )
    (aside / "model_index.json").write_text(json.dumps(_model_index(), indent=2) + "\n", encoding="utf-8")
    (aside / "card.json").write_text(json.dumps(_card(work, preset, target.name), indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    aside.rename(target)


def measure(target: Path, photographs: Sequence[Pair], device: str) -> None:
    """Measure the finished base, write the figures into its card and a sheet of samples beside it."""
    base = load_base(str(target), device=device)
    part = target / "u2net" / f"{Subject.PART}.safetensors"
    net = load_u2net(part).to(device) if part.is_file() else None
    card = base.card | {"measured": measure_base(base, net, photographs, MEASURED_PAIRS)}
    (target / "card.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    sample_sheet(base).save(target / "samples.png")


def _model_index() -> dict[str, Any]:
    return {
        "_class_name": "StableDiffusionPipeline",
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDPMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }


def _card(work: Path, preset: Preset, name: str) -> dict[str, Any]:
    pairs_seen = preset.pairs_loop.steps * preset.pairs.batch
    times = _times(work)
    return {
        "name": name,
        "trained_on": "procedural images of this package only; no photographs",
        "license": "Apache-2.0",
        "samples_rendered": preset.samples,
        "crops_seen_by_autoencoder": preset.autoencoder_loop.steps * preset.autoencoder.batch,
        "pairs_seen_by_unet": pairs_seen,
        "images_seen_by_unet": 2 * pairs_seen,
        "seed": preset.pairs.seed,
        "seconds": {stage: {machine: round(spent) for machine, spent in times[stage].items()} for stage in times},
        "few_shot": preset.few_shot,
        "sampling": preset.sampling,
    }


def _times(work: Path) -> dict[str, dict[str, float]]:
    """Stage → machine → seconds spent."""
    path = work / "times.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _add_time(work: Path, stage: Stage, seconds: float, device: str) -> None:
    if seconds < SKIPPED_SECONDS:
        return
    times = _times(work)
    machine = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {os.cpu_count()} cores, {platform.machine()}"
    spent = times.setdefault(stage, {})
    spent[machine] = spent.get(machine, 0.0) + seconds
    (work / "times.json").write_text(json.dumps(times), encoding="utf-8")


def _save_aside(network: AutoencoderKL | UNet2DConditionModel, folder: Path) -> None:
    aside = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    network.save_pretrained(aside)
    aside.rename(folder)
