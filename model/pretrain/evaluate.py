"""Measures a base: reconstruction, masks, alignment of the two branches; also draws a sheet of samples.

Alignment is the mean |I − I_a| inside the generated mask, against the same with the images shuffled among the pairs;
equal numbers mean that the branches are independent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from model.data.crops import cut_image, cut_mask, draw_window
from model.data.pixels import to_images, to_pixels
from model.diffusion.attention_maps import average_maps
from model.diffusion.base import Base
from model.diffusion.noise_schedule import NoiseSchedule
from model.diffusion.prompts import embed, own_tokens, tokenize
from model.diffusion.schedulers import make_scheduler
from model.diffusion.vae import decode, encode
from model.dualanodiff.prompts import RARE_DEFECT, RARE_OBJECT
from model.dualanodiff.sampling.loop import guide
from model.dualanodiff.unet import ForwardOptions, TwoBranchUNet
from model.export.preview import contact_sheet
from model.masks.extraction import attention_mask, iou, threshold_mask, tidy_mask, u2net_mask
from model.masks.u2net import U2Net
from model.pretrain.procedural import render
from model.quality.gate import QualityGate
from model.types import Candidate, ImageArray, MaskArray, Pair, anomaly_part
from service.core.options.common import MaskMethod

HELD_OUT_SEED = 10_000_000
"""First procedural seed that is never trained on."""

ATTENTION_TIMESTEPS = (150, 300, 450, 600)
"""Timesteps, of 1000, at which attention maps are taken."""

DENOISED_TIMESTEPS = (300, 600, 900)
"""Timesteps, of 1000, from which pairs are restored in one step."""

SAMPLE_STEPS, SAMPLE_GUIDANCE = 25, 1.5


def held_out_pairs(count: int, side: int) -> list[Pair]:
    """Render procedural pairs that no training uses, as windows of `side` pixels on their defects."""
    samples = [render(HELD_OUT_SEED + number) for number in range(count)]
    return window_pairs([Pair(str(number), s.image, s.mask) for number, s in enumerate(samples)], side)


def window_pairs(pairs: Sequence[Pair], side: int) -> list[Pair]:
    """Cut one window of every pair, by the rule of `model.data.crops`."""
    views = []
    for number, pair in enumerate(pairs):
        window = draw_window(pair.mask, "window", side, np.random.default_rng(number))
        views.append(Pair(pair.name, cut_image(pair.image, window, side), cut_mask(pair.mask, window, side)))
    return views


@torch.no_grad()
def measure_reconstruction(base: Base, pairs: Sequence[Pair]) -> dict[str, float]:
    """Measure PSNR (dB), SSIM and the mean error inside the masks (0–255) of autoencoded images."""
    psnr, ssim, inside = [], [], []
    for pair in pairs:
        (output,) = to_images(decode(base.vae, encode(base.vae, to_pixels([pair.image]))))
        psnr.append(peak_signal_noise_ratio(pair.image, output))
        ssim.append(structural_similarity(pair.image, output, channel_axis=2))
        inside.append(np.abs(pair.image.astype(np.float32) - output)[pair.mask].mean())
    return {
        "images": len(pairs),
        "psnr": round(float(np.mean(psnr)), 2),
        "ssim": round(float(np.mean(ssim)), 4),
        "error_inside_masks": round(float(np.mean(inside)), 2),
    }


@torch.no_grad()
def measure_denoising(base: Base, pairs: Sequence[Pair]) -> dict[str, float]:
    """Measure the PSNR (dB) of pairs that the U-Net restores in one step from noise, decoded.

    Unlike a loss in latents, this can be compared between bases with different autoencoders.

    Returns:
        Means over images and over parts, for every timestep of `DENOISED_TIMESTEPS`.
    """
    denoiser, schedule = _denoiser(base), NoiseSchedule.from_config(base.scheduler, base.device)
    branches = [[pair.image for pair in pairs], [anomaly_part(pair.image, pair.mask) for pair in pairs]]
    clean = torch.stack([encode(base.vae, to_pixels(images)) for images in branches])
    tokens = tokenize(base.tokenizer, [f"a {RARE_OBJECT} with {RARE_DEFECT}", RARE_DEFECT])
    text = embed(base.text_encoder, tokens)[:, None].expand(-1, len(pairs), -1, -1)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0)).to(base.device)
    found = {}
    for timestep in DENOISED_TIMESTEPS:
        steps = torch.full((len(pairs),), timestep, device=base.device)
        noisy = schedule.add_noise(clean, noise, steps)
        restored = schedule.predict_clean(noisy, denoiser(noisy, steps, text), steps)
        for name, latents, images in zip(("image", "part"), restored, branches, strict=True):
            outputs = to_images(decode(base.vae, latents))
            psnr = [peak_signal_noise_ratio(one, other) for one, other in zip(images, outputs, strict=True)]
            found[f"{name}_{timestep}"] = round(float(np.mean(psnr)), 2)
    return found


def measure_masks(base: Base, net: U2Net | None, pairs: Sequence[Pair]) -> dict[str, float]:
    """Measure the mean IoU of each mask method on the pairs' autoencoded parts.

    Attention is that of the base itself, before any few-shot training, on noised real pairs.
    """
    parts = [anomaly_part(pair.image, pair.mask) for pair in pairs]
    passed = [to_images(decode(base.vae, encode(base.vae, to_pixels([part]))))[0] for part in parts]

    def mean(found: Sequence[MaskArray]) -> float:
        return round(float(np.mean([iou(one, pair.mask) for one, pair in zip(found, pairs, strict=True)])), 4)

    scores = {str(MaskMethod.THRESHOLD): mean([tidy_mask(threshold_mask(part)) for part in passed])}
    scores[str(MaskMethod.ATTENTION)] = mean([tidy_mask(mask) for mask in _attention_masks(base, pairs, parts)])
    if net is not None:
        scores[str(MaskMethod.U2NET)] = mean([tidy_mask(u2net_mask(net, part)) for part in passed])
    return scores


@torch.no_grad()
def _attention_masks(base: Base, pairs: Sequence[Pair], parts: Sequence[ImageArray]) -> list[MaskArray]:
    """Return what the anomaly branch attends to on the pairs, noised to several timesteps."""
    denoiser = _denoiser(base)
    schedule = NoiseSchedule.from_config(base.scheduler)
    clean = torch.stack(
        [encode(base.vae, to_pixels([pair.image for pair in pairs])), encode(base.vae, to_pixels(parts))]
    )
    count = len(pairs)
    tokens = tokenize(base.tokenizer, [f"a {RARE_OBJECT} with {RARE_DEFECT}", RARE_DEFECT])
    own = own_tokens(base.tokenizer, tokens[1])
    text = embed(base.text_encoder, tokens)[:, None].expand(-1, count, -1, -1)
    generator = torch.Generator().manual_seed(0)
    averaged = []
    for timestep in ATTENTION_TIMESTEPS:
        steps = torch.full((count,), timestep, device=base.device)
        noise = torch.randn(clean.shape, generator=generator).to(base.device)
        maps: list[Tensor] = []
        denoiser(schedule.add_noise(clean, noise, steps), steps, text, ForwardOptions(attention_maps=maps))
        averaged.append(average_maps(maps, count, clean.shape[-2:])[..., own].mean(-1))
    shape = pairs[0].mask.shape
    return [attention_mask(one.cpu().numpy(), (shape[0], shape[1])) for one in torch.stack(averaged).mean(0)]


def _denoiser(base: Base) -> TwoBranchUNet:
    denoiser = TwoBranchUNet.fresh(base.unet, with_background=False).to(base.device).eval()
    if base.interaction is not None:
        denoiser.interaction.load_state_dict(base.interaction)
    return denoiser


@torch.no_grad()
def sample_base(base: Base, count: int, seed: int = 0) -> tuple[list[ImageArray], list[ImageArray], list[str]]:
    """Sample images and parts from the base, with procedural captions; returns `(images, parts, captions)`."""
    denoiser = _denoiser(base)
    samples = [render(HELD_OUT_SEED + number, 64) for number in range(count)]
    captions = [sample.caption for sample in samples]
    tokens = torch.stack(
        [tokenize(base.tokenizer, captions), tokenize(base.tokenizer, [sample.part_caption for sample in samples])]
    )
    text = embed(base.text_encoder, tokens.flatten(0, 1)).unflatten(0, (2, count))
    empty = embed(base.text_encoder, tokenize(base.tokenizer, [""]))[None].expand_as(text)
    cells = int(base.unet.config.sample_size)
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn((2, count, base.latent_channels, cells, cells), generator=generator).to(base.device)
    scheduler = make_scheduler("dpmsolver++", base.scheduler)
    scheduler.set_timesteps(SAMPLE_STEPS, device=base.device)
    for timestep in scheduler.timesteps:
        both = denoiser(latents.repeat(1, 2, 1, 1, 1), timestep, torch.cat([text, empty], dim=1))
        prediction = guide(both, SAMPLE_GUIDANCE)
        step = scheduler.step(prediction.flatten(0, 1), timestep, latents.flatten(0, 1))
        latents = step.prev_sample.unflatten(0, (2, count))
    return to_images(decode(base.vae, latents[0])), to_images(decode(base.vae, latents[1])), captions


def measure_alignment(images: Sequence[ImageArray], parts: Sequence[ImageArray]) -> dict[str, float | None]:
    """Measure the mean |I − I_a| inside the part's mask, and the same with images shifted by one pair.

    Both are None where no part shows a defect.
    """
    masks = [threshold_mask(part) for part in parts]
    known = [number for number, mask in enumerate(masks) if mask.any()]

    def difference(shift: int) -> float | None:
        gaps = [_gap(images[(number + shift) % len(images)], parts[number], masks[number]) for number in known]
        return round(float(np.mean(gaps)), 2) if gaps else None

    return {
        "pairs": len(images),
        "inside": difference(0),
        "inside_shuffled": difference(1),
        "mask_area": round(float(np.mean(masks)), 4),
    }


def measure_acceptance(
    images: Sequence[ImageArray], parts: Sequence[ImageArray], masks: Sequence[MaskArray], reals: Sequence[Pair]
) -> dict[str, Any]:
    """Measure the share of free samples that pass the quality checks, and why others are rejected.

    Args:
        reals: pairs that set the limits of masks and visibility; samples show other objects and defects.
    """
    gate = QualityGate(reals)
    verdicts = []
    for number, (image, part, mask) in enumerate(zip(images, parts, masks, strict=True)):
        candidate = Candidate(number, number, image, mask, part)
        verdicts.append(gate.check(candidate))
        if verdicts[-1].accepted:
            gate.accept(candidate)
    reasons = Counter(str(reason) for verdict in verdicts for reason in verdict.reasons)
    accepted = sum(verdict.accepted for verdict in verdicts) / len(verdicts)
    return {"candidates": len(verdicts), "accepted": round(accepted, 4), "rejected": dict(sorted(reasons.items()))}


def measure_base(base: Base, net: U2Net | None, photographs: Sequence[Pair], count: int) -> dict[str, Any]:
    """Measure everything above, on `count` held-out procedural pairs and on the photographs, if any."""
    measured: dict[str, Any] = {}
    sets = {"procedural": held_out_pairs(count, base.resolution)}
    if photographs:
        sets["photographs"] = window_pairs(photographs, base.resolution)
    for name, pairs in sets.items():
        measured[f"reconstruction_{name}"] = measure_reconstruction(base, pairs)
        measured[f"mask_iou_{name}"] = measure_masks(base, net, pairs)
        measured[f"denoising_{name}"] = measure_denoising(base, pairs)
    images, parts, _ = sample_base(base, count)
    measured["alignment"] = measure_alignment(images, parts)
    masks = [tidy_mask(threshold_mask(part) if net is None else u2net_mask(net, part)) for part in parts]
    measured["acceptance_from_noise"] = measure_acceptance(images, parts, masks, sets["procedural"])
    return measured


def sample_sheet(base: Base, count: int = 16) -> Image.Image:
    """Draw samples from the base: image, part and mask below each other."""
    images, parts, captions = sample_base(base, count)
    rows: list[Sequence[ImageArray | MaskArray]] = []
    for begin in range(0, count, 8):
        chunk = slice(begin, begin + 8)
        rows += [images[chunk], parts[chunk], [threshold_mask(part) for part in parts[chunk]]]
    return contact_sheet(
        rows, [[*captions[begin : begin + 8]] for begin in range(0, count, 8) for _ in range(3)], tile=96
    )


def _gap(image: ImageArray, part: ImageArray, mask: NDArray[np.bool_]) -> float:
    return float(np.abs(image[mask].astype(np.float32) - part[mask]).mean())
