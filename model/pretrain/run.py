"""Runs the whole pretraining, resumably: render, autoencoder, pairs, mask networks, the base, and filling masks on it.

Every stage keeps its state in the work folder and is skipped once done, so the command may be stopped at any time and
run again, or run stage by stage. Other processes render scenes while networks train. A run's duration is divided among
the stages; run again with more minutes, it continues the pairs. It may also start from a finished base of the same
recipe, and then keeps its latents and mask networks.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, PreTrainedTokenizerFast

from model.diffusion.base import FILLING, base_digest, load_base
from model.diffusion.noise_schedule import NoiseSchedule
from model.dualanodiff.unet import TwoBranchUNet
from model.masks.u2net import load_u2net, save_u2net
from model.pretrain.autoencoder import build_autoencoder, fold_latent_statistics, train_autoencoder
from model.pretrain.data import Views, ViewShards, load_views
from model.pretrain.evaluate import HELD_OUT_SEED, measure_base, sample_sheet
from model.pretrain.filling import filled_views, train_filling
from model.pretrain.loop import is_over, steps_taken
from model.pretrain.pairs import PairEncoder, build_unet, train_pairs
from model.pretrain.presets import Preset
from model.pretrain.procedural import vocabulary
from model.pretrain.procedural.dataset import Renderer, render_shard
from model.pretrain.segmentation import SegmentationConfig, Subject, build_segmentation, train_segmentation
from model.pretrain.text import build_text_encoder, build_tokenizer
from model.runtime.progress import Meter, Progress
from model.types import Pair
from service.core.atomic_write import atomic_file, atomic_folder, write_text
from service.core.errors import UsageError
from service.core.strict_json import to_json

SHARD_BYTES = 15 * 2**20
"""Largest safetensors file of a base, for hosts that limit the size of files."""

SKIPPED_SECONDS = 2.0
"""Seconds; a faster stage had nothing left to do."""

MEASURED_PAIRS = 64
"""Number of held-out pairs, and of samples, that the card's figures are averaged over."""

START = "start"
"""Name, in the work folder, of the base that is started from."""

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
"""Stable Diffusion's noise schedule with zero terminal SNR, which a mid-grey background needs: with the original
schedule, the last timestep still shows the image's mean."""


class Stage(StrEnum):
    """Stages of pretraining, in order."""

    RENDER = "render"
    AUTOENCODER = "autoencoder"
    PAIRS = "pairs"
    MASKS = "masks"
    ASSEMBLE = "assemble"
    FILLING = "filling"
    MEASURE = "measure"


def pretrain(
    work: Path,
    preset: Preset,
    target: Path,
    *,
    device: str = "cpu",
    stages: Sequence[Stage] = tuple(Stage),
    photographs: Sequence[Pair] = (),
    start: Path | None = None,
) -> Iterator[Progress]:
    """Make a base from this package alone.

    Args:
        work: folder of shards, checkpoints and finished parts.
        preset: all sizes, and the length of every loop.
        target: folder of the finished base; replaced if it exists.
        device: "cpu" or "cuda".
        stages: stages to run; results of earlier ones that they need must exist.
        photographs: real pairs on which the finished base is measured; nothing is trained on them.
        start: base of this recipe to continue from; None to start from scratch, or to resume in the work folder.

    Raises:
        UsageError: if the base to start from has another vocabulary.
    """
    work.mkdir(parents=True, exist_ok=True)
    if start is not None:
        _start_from(work, start)
    with ExitStack() as rendering:
        renderer = rendering.enter_context(_renderer(work, preset)) if Stage.RENDER in stages else None
        for stage in Stage:
            if stage not in stages:
                continue
            began = time.monotonic()
            try:
                if renderer is not None and stage is Stage.RENDER:
                    # Later stages add what is rendered while they run.
                    enough = preset.shard * preset.first_shards if len(stages) > 1 else preset.scenes
                    yield from _rendered(renderer, enough)
                if stage is Stage.MEASURE:
                    measure(target, photographs, device)
                    yield Progress("measure", 1, 1, "bases")
                else:
                    yield from _run_stage(stage, work, preset, target, device)
            finally:
                _add_time(work, stage, time.monotonic() - began, device)


def _renderer(work: Path, preset: Preset) -> Renderer:
    """Make a renderer of scenes that the base to start from has not seen."""
    processes = max(1, (os.cpu_count() or 1) - 1)
    first = int(_started_card(work).get("samples_rendered", 0))
    return Renderer(
        work / "views", first, preset.scenes, preset.render_size, preset.pixels, processes, shard=preset.shard
    )


def _rendered(renderer: Renderer, scenes: int) -> Iterator[Progress]:
    total = min(scenes, renderer.scenes)
    meter = Meter("render", total, "scenes", resumed=min(renderer.done, total))
    for done in renderer.until(scenes):
        yield meter.report(min(done, total))


def _run_stage(stage: Stage, work: Path, preset: Preset, target: Path, device: str) -> Iterator[Progress]:
    match stage:
        case Stage.AUTOENCODER:
            yield from _autoencoder(work, preset, device)
        case Stage.PAIRS:
            yield from _pairs(work, preset, device)
        case Stage.MASKS:
            yield from _masks(work, preset, device)
        case Stage.ASSEMBLE:
            assemble(work, preset, target)
            yield Progress("assemble", 1, 1, "bases")
        case Stage.FILLING:
            yield from _filling(work, preset, target, device)


def _autoencoder(work: Path, preset: Preset, device: str) -> Iterator[Progress]:
    if (work / "vae").is_dir():
        return
    shards, folder = ViewShards(work / "views", device), work / "autoencoder"
    config, loop, start = preset.autoencoder, preset.autoencoder_loop, work / START / "vae"
    if start.is_dir():
        vae = AutoencoderKL.from_pretrained(start, torch_dtype=torch.float32).to(device)
        yield from train_autoencoder(vae, shards, folder, config, loop, decoder_only=True)
    else:
        vae = build_autoencoder(config, preset.pixels).to(device)
        yield from train_autoencoder(vae, shards, folder, config, loop)
        fold_latent_statistics(vae, shards.shards[0].images)
    _save_aside(vae, work / "vae")


def _pairs(work: Path, preset: Preset, device: str) -> Iterator[Progress]:
    if (work / "unet").is_dir() and is_over(work / "pairs", preset.pairs_loop):
        return
    vae = AutoencoderKL.from_pretrained(work / "vae").to(device)
    tokenizer = build_tokenizer(vocabulary())
    encoder = PairEncoder(vae, tokenizer, work / "views", work / "encoded", preset.pairs)
    # A GPU encodes all views in seconds; a CPU encodes between steps.
    shards = preset.first_shards if device == "cpu" else -(-preset.scenes // preset.shard)
    meter = Meter("encode", shards, "shards", resumed=len(encoder.encoded))
    while len(encoder.encoded) < shards and encoder.encode_some():
        yield meter.report(len(encoder.encoded))
    denoiser, text_encoder = build_networks(work, preset, tokenizer, vae)
    denoiser.to(device)
    text_encoder.to(device)
    schedule = NoiseSchedule.from_config(SCHEDULER, device)
    yield from train_pairs(
        denoiser, text_encoder, tokenizer, encoder, schedule, work / "pairs", preset.pairs, preset.pairs_loop
    )
    save_networks(work, denoiser, text_encoder, tokenizer)


def build_networks(
    work: Path, preset: Preset, tokenizer: PreTrainedTokenizerFast, vae: AutoencoderKL
) -> tuple[TwoBranchUNet, CLIPTextModel]:
    """Make U-Net with SAIM, and text encoder, with new weights or those of the base to start from."""
    start = work / START
    if start.is_dir():
        unet = UNet2DConditionModel.from_pretrained(start / "unet", torch_dtype=torch.float32)
        denoiser = TwoBranchUNet.fresh(unet, with_background=False)
        denoiser.interaction.load_state_dict(load_file(start / "interaction" / "interaction.safetensors"))
        return denoiser, CLIPTextModel.from_pretrained(start / "text_encoder")
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    unet = build_unet(preset.pairs, vae.config.latent_channels, preset.pixels // factor, preset.text_width)
    denoiser = TwoBranchUNet.fresh(unet, with_background=False)
    return denoiser, build_text_encoder(len(tokenizer), preset.text_width, preset.text_layers, preset.pairs.seed)


def save_networks(
    work: Path, denoiser: TwoBranchUNet, text_encoder: CLIPTextModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Write finished parts to the work folder; the U-Net last, so that its presence means completeness."""
    shutil.rmtree(work / "unet", ignore_errors=True)
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
        shards, held_out = ViewShards(work / "views", device), _held_out(work, preset, device)
        config = SegmentationConfig(subject, batch=preset.mask_batch)
        net = build_segmentation(config).to(device)
        yield from train_segmentation(net, shards, held_out, work / f"masks-{subject}", config, preset.masks, vae)
        with atomic_file(finished) as aside:
            save_u2net(net, aside)


def _filling(work: Path, preset: Preset, target: Path, device: str) -> Iterator[Progress]:
    """Train on the finished base, and add the result to it."""
    base = load_base(str(target), device=device)
    folder, finished, start = work / "filling", work / FILLING.name, work / START / FILLING
    if start.is_file():
        base.filling = load_file(start)
    if not is_over(folder, preset.filling_loop) or not finished.is_file():
        encoded = sorted((work / "encoded").glob("*.safetensors"))
        views = filled_views(encoded, work / "views", preset.pairs, base.device)
        yield from train_filling(base, views, folder, finished, preset.filling, preset.filling_loop)
    (target / FILLING).parent.mkdir(exist_ok=True)
    shutil.copyfile(finished, target / FILLING)
    before = int(_started_card(work).get("masks_filled", 0))
    card = base.card | {"masks_filled": steps_taken(folder) * preset.filling.batch + before}
    write_text(target / "card.json", to_json(card, indent=1) + "\n")


def _held_out(work: Path, preset: Preset, device: str) -> Views:
    """Render views of scenes that nothing is trained on."""
    path = work / "held-out.safetensors"
    if not path.is_file():
        render_shard(path, HELD_OUT_SEED, MEASURED_PAIRS, preset.render_size, preset.pixels)
    return load_views(path, device)


def _start_from(work: Path, base: Path) -> None:
    """Copy a base to the work folder once, with its parts where the stages expect them.

    Raises:
        UsageError: the base has another vocabulary, or the work folder belongs to another run.
    """
    if (work / START).is_dir():
        if base_digest(work / START) != base_digest(base):
            raise UsageError(
                f"{work} continues another base than {base}: use another work folder, or leave out --start"
            )
        return
    if begun := [name for name in ("autoencoder", "vae", "pairs") if (work / name).exists()]:
        raise UsageError(
            f"{work} holds a run that did not start from a base ({', '.join(begun)}): use another work folder, "
            "or leave out --start"
        )
    words = PreTrainedTokenizerFast.from_pretrained(base / "tokenizer").get_vocab()
    if words != build_tokenizer(vocabulary()).get_vocab():
        raise UsageError(
            f"{base} has another vocabulary than today's captions, so it cannot be continued from: make a new base"
        )
    with atomic_folder(work / START) as aside:
        shutil.copytree(base, aside, dirs_exist_ok=True)
        for subject in Subject:
            shutil.copyfile(base / "u2net" / f"{subject}.safetensors", work / f"{subject}.safetensors")


def _started_card(work: Path) -> dict[str, Any]:
    """Read the card of the base to start from; empty without one."""
    path = work / START / "card.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def assemble(work: Path, preset: Preset, target: Path) -> None:
    """Combine the finished parts to a base in half precision, with a first version of its card."""
    with atomic_folder(target) as aside:
        _put_together(work, aside)
        card = _card(work, preset, target.name)
        (aside / "card.json").write_text(to_json(card, indent=1) + "\n", encoding="utf-8")


def _put_together(work: Path, aside: Path) -> None:
    AutoencoderKL.from_pretrained(work / "vae").half().save_pretrained(aside / "vae", max_shard_size=SHARD_BYTES)
    UNet2DConditionModel.from_pretrained(work / "unet").half().save_pretrained(
        aside / "unet", max_shard_size=SHARD_BYTES
    )
    # In full precision: transformers loads the stored precision, which must match that of the U-Net.
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
    for file in aside.glob("*/config.json"):
        # diffusers records the path that a network was loaded from; remove it.
        config = json.loads(file.read_text(encoding="utf-8"))
        config.pop("_name_or_path", None)
        file.write_text(to_json(config, indent=2) + "\n", encoding="utf-8")
    (aside / "model_index.json").write_text(to_json(_model_index(), indent=2) + "\n", encoding="utf-8")


def measure(target: Path, photographs: Sequence[Pair], device: str) -> None:
    """Measure the finished base; write the figures to its card, and a sheet of samples beside it."""
    base = load_base(str(target), device=device)
    part = target / "u2net" / f"{Subject.PART}.safetensors"
    net = load_u2net(part).to(device) if part.is_file() else None
    card = base.card | {"measured": measure_base(base, net, photographs, MEASURED_PAIRS)}
    (target / "card.json").write_text(to_json(card, indent=1) + "\n", encoding="utf-8")
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
    start = _started_card(work)
    pairs_seen = steps_taken(work / "pairs") * preset.pairs.batch + int(start.get("pairs_seen_by_unet", 0))
    scenes = len(list((work / "encoded").glob("*.safetensors"))) * preset.shard
    crops = steps_taken(work / "autoencoder") * preset.autoencoder.batch + start.get("crops_seen_by_autoencoder", 0)
    times = _times(work)
    seconds: dict[str, dict[str, float]] = dict(start.get("seconds", {}))
    for stage, spent in times.items():
        before = seconds.get(stage, {})
        seconds[stage] = before | {machine: round(before.get(machine, 0) + spent[machine]) for machine in spent}
    return {
        "name": name,
        "trained_on": "procedural images of this package only; no photographs",
        "license": "Apache-2.0",
        "samples_rendered": min(scenes, preset.scenes) + int(start.get("samples_rendered", 0)),
        "crops_seen_by_autoencoder": crops,
        "pairs_seen_by_unet": pairs_seen,
        "images_seen_by_unet": 2 * pairs_seen,
        "seed": preset.pairs.seed,
        "seconds": seconds,
        "few_shot": preset.few_shot,
        "sampling": preset.sampling,
    }


def _times(work: Path) -> dict[str, dict[str, float]]:
    """Return stage → machine → seconds spent."""
    path = work / "times.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _add_time(work: Path, stage: Stage, seconds: float, device: str) -> None:
    if seconds < SKIPPED_SECONDS:
        return
    times = _times(work)
    machine = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {os.cpu_count()} cores, {platform.machine()}"
    spent = times.setdefault(stage, {})
    spent[machine] = spent.get(machine, 0.0) + seconds
    write_text(work / "times.json", to_json(times))


def _save_aside(network: AutoencoderKL | UNet2DConditionModel, folder: Path) -> None:
    with atomic_folder(folder) as aside:
        network.save_pretrained(aside)
