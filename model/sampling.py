"""Sampling pairs: both branches denoised together, batched over pairs and guidance, one seed per pair.

Pair `i` of a request draws everything (noise of both branches, normal image, window) from `(seed, i)` on the CPU, so
it is the same pair in whatever batch it is made, up to rounding; a request cut anywhere gives the very same bytes.
With normal images given, sampling is *anchored* on them, see `model.anchoring`.
"""

from __future__ import annotations

import inspect
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler
from diffusers.schedulers import KarrasDiffusionSchedulers
from torch import Tensor

from model.adapter import Adapter
from model.anchoring import Anchoring, anchor_on, blend, grey_latent
from model.attention_maps import average_maps
from model.background import background_images
from model.base import Base
from model.denoiser import BranchPass
from model.latents import decode, encode
from model.masks import MaskMethod, attention_mask, threshold_mask, tidy_mask, u2net_mask
from model.merging import MergedDenoiser, merge_for_sampling
from model.network import PairModel
from model.pixels import to_images, to_pixels
from model.placement import Anchor, NormalImage, draw_anchor, paste, place_part
from model.progress import Meter, Progress
from model.stages import stage
from model.text import own_tokens
from model.types import Candidate, ImageArray
from model.u2net import U2Net
from model.views import resize_image
from service.core.errors import UsageError

GUIDANCE, GUIDANCE_WITH_BCM = 2.5, 2.0
"""Classifier-free guidance of the authors' own runs."""

NOISE = 1
"""Tells the noise's draws from a pair's others."""

SCHEDULERS = frozenset(KarrasDiffusionSchedulers.__members__) - {"EDMEulerScheduler"}
"""diffusers' schedulers for Stable Diffusion; EDM's scales its inputs in a way of its own."""

BACKGROUND_SHARE = 50
"""Consecutive pairs that share a BCM background where they are not anchored (released code)."""

SHARED = 2**40
"""Indices from here on are those of shared backgrounds, not of pairs."""


@dataclass(frozen=True, slots=True)
class SamplingConfig:
    """How pairs are sampled.

    Attributes:
        seed: of the whole request.
        steps: denoising steps.
        guidance_scale: classifier-free guidance w; 1 is none (and half the work). The authors use 2.5, 2.0 with BCM.
        scheduler: "dpmsolver++", or the name of any diffusers scheduler class.
        batch: pairs denoised together.
        mask_method: see `model.masks`.
        anchored: start from normal images and keep their background; needs normals.
        strength: where an anchored start lies, as a share of the noise schedule; 1 forgets the normal at the start.
        sketch_strength: above 0, an anchored start lies here instead, and has a real defect, changed at random, on the
            normal (see `model.sketch`); what comes of it stays near. For bases too small to compose a defect.
        blend_from: share of the denoising after which the background outside the defect is the normal's.
        agreement: in anchored sampling, how far the image's latents inside the defect are drawn to the part's, in
            [0, 1]. By definition the two are equal there (I_a = I × M_a); a weak base needs the reminder.
        precision: "fp32" or "bf16".
    """

    seed: int = 0
    steps: int = 25
    guidance_scale: float = GUIDANCE
    scheduler: str = "dpmsolver++"
    batch: int = 8
    mask_method: MaskMethod = MaskMethod.U2NET
    anchored: bool = False
    strength: float = 0.9
    sketch_strength: float = 0.0
    blend_from: float = 0.5
    agreement: float = 0.0
    precision: str = "fp32"


def resolve_sampling(
    base: Base, chosen: dict[str, Any], *, has_normals: bool, has_mask_net: bool = True, bcm: bool = False
) -> SamplingConfig:
    """The defaults, over them the base's recommendations, over them what the user chose (None: not chosen).

    Choosing `strength` alone chooses the start that it is meant for, without a sketch.

    Args:
        has_normals: whether normal images are given; they make sampling anchored.
        has_mask_net: whether the adapter has a mask network; without one masks come by threshold.
        bcm: whether the adapter has BCM, for which the authors use less guidance.

    Raises:
        UsageError: naming every value that cannot be.
    """
    known = {field.name for field in fields(SamplingConfig)}
    recommended = {key: value for key, value in base.sampling.items() if key in known}
    given = {key: value for key, value in chosen.items() if value is not None}
    if unknown := sorted(set(given) - known):
        raise UsageError(f"unknown sampling options {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    defaults = SamplingConfig(
        anchored=has_normals,
        mask_method=MaskMethod.U2NET if has_mask_net else MaskMethod.THRESHOLD,
        guidance_scale=GUIDANCE_WITH_BCM if bcm else GUIDANCE,
    )
    anchored = given.get("anchored", recommended.get("anchored", has_normals))
    if "strength" in given or not anchored:
        recommended.pop("sketch_strength", None)
    config = replace(defaults, **{**recommended, **given})
    problems = [
        f"{name} is {given[name]}, but it is about anchored sampling, on normal images, which is off"
        for name in ("strength", "sketch_strength")
        if given.get(name) and not anchored
    ]
    if given.get("strength") and given.get("sketch_strength"):
        problems.append("strength and sketch_strength both say where sampling starts: choose one")
    if problems := problems + _problems(config, has_normals=has_normals):
        raise UsageError(problems, "The sampling options cannot be used")
    return replace(config, mask_method=MaskMethod(config.mask_method))


def _problems(config: SamplingConfig, *, has_normals: bool) -> list[str]:
    least = {"seed": (config.seed, 0), "steps": (config.steps, 1), "batch": (config.batch, 1)}
    problems = [
        f"{name} is {value}; it must be at least {lowest}" for name, (value, lowest) in least.items() if value < lowest
    ]
    if not config.guidance_scale >= 0:
        problems.append(f"guidance_scale is {config.guidance_scale}; it must not be negative")
    if not 0 < config.strength <= 1:
        problems.append(f"strength is {config.strength}; it must be above 0 and at most 1")
    shares = {
        "sketch_strength": config.sketch_strength,
        "blend_from": config.blend_from,
        "agreement": config.agreement,
    }
    problems += [f"{name} is {share}; it must be from 0 to 1" for name, share in shares.items() if not 0 <= share <= 1]
    if config.anchored and not has_normals:
        problems.append("anchored sampling needs normal images; none were given")
    for name, value, allowed in (
        ("mask_method", config.mask_method, tuple(MaskMethod)),
        ("precision", config.precision, ("fp32", "bf16")),
        ("scheduler", config.scheduler, ("dpmsolver++", *sorted(SCHEDULERS))),
    ):
        if value not in allowed:
            problems.append(f"{name} is {value!r}; it must be one of {', '.join(allowed)}")
    return problems


def pair_seed(seed: int, index: int) -> int:
    """The 63-bit seed of pair `index`."""
    return int(np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def draw_noise(seed: int, shape: tuple[int, ...]) -> Tensor:
    """Standard normal noise from all 63 bits of a seed (torch's CPU generator looks at 32 of them)."""
    return torch.from_numpy(np.random.default_rng([seed, NOISE]).standard_normal(shape, dtype=np.float32))


def sample_pairs(
    adapter: Adapter,
    config: SamplingConfig,
    start: int,
    stop: int,
    *,
    normals: Sequence[NormalImage] = (),
    object_net: U2Net | None = None,
) -> Iterator[Candidate]:
    """Generate candidates `start` to `stop - 1`, batch after batch; stop consuming to stop, start later to go on.

    A pair always lies in the same place of a batch of the same shape (number `index % batch`), so that starting in the
    middle changes no rounding either: the same request gives the same bytes however it is cut.

    Args:
        normals: defect-free images; needed for anchored sampling, and for the backgrounds of an adapter with BCM.
        object_net: finds objects for BCM's backgrounds.

    Raises:
        UsageError: an adapter with BCM is used without normals or without a network that finds objects.
    """
    for item in sample_steps(adapter, config, start, stop, normals=normals, object_net=object_net):
        if isinstance(item, Candidate):
            yield item


def sample_steps(
    adapter: Adapter,
    config: SamplingConfig,
    start: int,
    stop: int,
    *,
    normals: Sequence[NormalImage] = (),
    object_net: U2Net | None = None,
) -> Iterator[Progress | Candidate]:
    """As `sample_pairs`, with progress after every denoising step between the candidates."""
    if adapter.model.config.bcm and (not normals or object_net is None):
        raise UsageError(
            "this adapter was trained with background compensation (bcm): sampling needs normal images, "
            "and a U²-Net that finds objects"
        )
    grey = grey_latent(adapter) if config.anchored else None
    sampler = prepare_sampling(adapter, config)
    for begin in range(start - start % config.batch, stop, config.batch):
        group = range(begin, begin + config.batch)
        candidates = yield from _sample_batch(sampler, config, group, normals, object_net, grey)
        yield from (candidate for candidate in candidates if start <= candidate.index < stop)


def prepare_sampling(adapter: Adapter, config: SamplingConfig) -> Adapter:
    """The adapter with its weights merged for sampling; for who samples in many calls, each of which would do it again.

    What is trained further needs preparing anew.
    """
    if isinstance(adapter.model.denoiser, MergedDenoiser):
        return adapter
    dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
    denoiser = merge_for_sampling(adapter.model.denoiser, adapter.model.base.unet, dtype)
    return replace(adapter, model=replace(adapter.model, denoiser=denoiser))


@torch.no_grad()
def _sample_batch(
    adapter: Adapter,
    config: SamplingConfig,
    indices: Sequence[int],
    normals: Sequence[NormalImage],
    object_net: U2Net | None,
    grey: Tensor | None,
) -> Generator[Progress, None, list[Candidate]]:
    model = adapter.model
    side = model.config.resolution
    seeds = [pair_seed(config.seed, index) for index in indices]
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    cells = side // model.base.factor
    shape = (2, model.base.latent_channels, cells, cells)
    noise = torch.stack([draw_noise(seed, shape) for seed in seeds], dim=1).to(model.device)
    # The autoencoder's; the denoiser's weights are of that precision themselves.
    precision = torch.autocast(model.device.type, torch.bfloat16, enabled=config.precision == "bf16")
    anchors: list[Anchor] | None = None
    anchoring: Anchoring | None = None
    if grey is not None:
        draws = [np.random.default_rng(seed) for seed in seeds]
        flips = (model.config.flip_horizontal, model.config.flip_vertical)
        anchors = [draw_anchor(normals, adapter.placements, draw, flips) for draw in draws]
        with stage("encode"), precision:
            anchoring = anchor_on(adapter, anchors, draws, grey, sketched=config.sketch_strength > 0)
    backgrounds = None
    if model.config.bcm and object_net is not None:
        behind, noise_seeds = anchors, seeds
        if behind is None:
            behind = [_shared_background(adapter, config, index, normals) for index in indices]
            noise_seeds = [pair_seed(config.seed, SHARED + index // BACKGROUND_SHARE) for index in indices]
        with stage("encode"), precision:
            backgrounds = _Backgrounds(model, behind, noise_seeds, object_net)
    with stage("denoise"):
        latents, maps = yield from _denoise(model, config, noise, anchoring, backgrounds, generators)
    colourless = bool(adapter.card["greyscale"])
    with stage("decode"), precision:
        images = _pictures(model, latents[0], grey=colourless)
        parts = _pictures(model, latents[1], grey=colourless)
        anchored_on = _pictures(model, anchoring.normal, grey=colourless) if anchoring is not None else None
    candidates = []
    for row, (index, seed) in enumerate(zip(indices, seeds, strict=True)):
        with stage("mask"):
            mask = tidy_mask(
                _find_mask(config.mask_method, adapter.mask_net, parts[row], maps[row] if maps is not None else None)
            )
        if anchors is None or anchored_on is None:
            candidates.append(Candidate(index, seed, images[row], mask, parts[row]))
            continue
        anchor = anchors[row]
        image, placed = paste(anchor, images[row], anchored_on[row], mask)
        candidates.append(
            Candidate(index, seed, image, placed, place_part(anchor, parts[row]), anchor.normal.name, anchor.window.box)
        )
    return candidates


def _pictures(model: PairModel, latents: Tensor, *, grey: bool) -> list[ImageArray]:
    """Decoded latents; without colour where the photographs have none, whatever tint the base may add."""
    pixels = decode(model.vae, latents)
    return to_images(pixels.mean(1, keepdim=True).expand_as(pixels) if grey else pixels)


def _find_mask(method: MaskMethod, net: U2Net | None, part: ImageArray, attention: np.ndarray | None) -> np.ndarray:
    if method is MaskMethod.U2NET:
        if net is None:
            raise UsageError("the adapter has no mask network: choose mask_method threshold or attention")
        return u2net_mask(net, part)
    if method is MaskMethod.ATTENTION and attention is not None:
        return attention_mask(attention, part.shape[:2])
    return threshold_mask(part)


def _denoise(
    model: PairModel,
    config: SamplingConfig,
    noise: Tensor,
    anchoring: Anchoring | None,
    backgrounds: _Backgrounds | None,
    generators: list[torch.Generator],
) -> Generator[Progress, None, tuple[Tensor, np.ndarray | None]]:
    """Noise `(2, B, C, h, w)` → latents of image and part; and the averaged attention maps when the masks need them."""
    scheduler = make_scheduler(config.scheduler, model.base.scheduler)
    scheduler.set_timesteps(config.steps, device=model.device)
    timesteps = scheduler.timesteps
    count = noise.shape[1]
    begin = 0
    latents = noise * scheduler.init_noise_sigma
    strength = config.sketch_strength or config.strength
    if anchoring is not None and strength < 1:
        begin = min(len(timesteps) - 1, round(len(timesteps) * (1 - strength)))
        begin -= begin % scheduler.order  # second-order schedulers list every step twice
        first = timesteps[begin : begin + 1].expand(2 * count)
        if hasattr(scheduler, "set_begin_index"):  # those without it find their place by the timestep alone
            scheduler.set_begin_index(begin)
        latents = scheduler.add_noise(anchoring.start.flatten(0, 1), noise.flatten(0, 1), first)
        latents = latents.unflatten(0, (2, count))
    guided = config.guidance_scale != 1
    text = model.prompt_embeddings().expand(-1, count, -1, -1)
    if guided:
        text = torch.cat([text, model.empty_embedding()[None].expand(2, count, -1, -1)], dim=1)
    collected: list[Tensor] = []
    meter = Meter("denoise", len(timesteps), "steps", resumed=begin)
    takes_generator = "generator" in inspect.signature(scheduler.step).parameters
    extra = {"generator": generators * 2} if takes_generator else {}
    for number, timestep in enumerate(timesteps[begin:], start=begin):
        scaled = scheduler.scale_model_input(latents, timestep)
        steps = timestep.long().expand(count)
        maps: list[Tensor] | None = [] if config.mask_method is MaskMethod.ATTENTION else None
        run = BranchPass(attention_maps=maps)
        if backgrounds is not None:
            run.background = backgrounds.features(timestep, guided=guided)
        both = scaled.repeat(1, 2, 1, 1, 1) if guided else scaled
        prediction = model.denoiser(both, timestep.long(), text, run).float()
        if guided:
            prediction = guide(prediction, config.guidance_scale)
        if anchoring is not None and number >= config.blend_from * len(timesteps):
            clean = model.schedule.predict_clean(scaled, prediction, steps)
            prediction = model.schedule.prediction_of(scaled, blend(clean, anchoring, config.agreement), steps)
        if maps is not None:
            collected.append(average_maps(maps, count, noise.shape[-2:]))
        latents = scheduler.step(prediction.flatten(0, 1), timestep, latents.flatten(0, 1), **extra).prev_sample
        latents = latents.unflatten(0, (2, count))
        yield meter.report(number + 1)
    if anchoring is not None:
        latents = blend(latents, anchoring, config.agreement)
    averaged = _defect_tokens(model, torch.stack(collected).mean(0)) if collected else None
    return latents, averaged


def guide(both: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance: conditional and unconditional predictions `(2, 2 B, …)` → `(2, B, …)`."""
    conditional, unconditional = both.chunk(2, dim=1)
    return unconditional + scale * (conditional - unconditional)


def make_scheduler(name: str, config: dict[str, Any]) -> Any:
    """A fresh scheduler (they keep state) over the base's noise schedule."""
    if name == "dpmsolver++":
        return DPMSolverMultistepScheduler.from_config(config, algorithm_type="dpmsolver++")
    return getattr(diffusers, name).from_config(config)


def _defect_tokens(model: PairModel, maps: Tensor) -> np.ndarray:
    """Mean over the anomaly prompt's own tokens of `(B, h, w, L)` maps → `(B, h, w)`."""
    return maps[..., own_tokens(model.tokenizer, model.tokens[1, 0])].mean(-1).cpu().numpy()


def _shared_background(adapter: Adapter, config: SamplingConfig, index: int, normals: Sequence[NormalImage]) -> Anchor:
    """The background of an unanchored pair: another normal window every 50 pairs."""
    draw = np.random.default_rng([config.seed, index // BACKGROUND_SHARE, BACKGROUND_SHARE])
    training = adapter.model.config
    return draw_anchor(normals, adapter.placements, draw, (training.flip_horizontal, training.flip_vertical))


class _Backgrounds:
    """BCM's background latents of one batch, noised to each timestep as it comes; shared ones are computed once."""

    def __init__(self, model: PairModel, anchors: Sequence[Anchor], seeds: Sequence[int], object_net: U2Net) -> None:
        self.model = model
        unique = dict(zip(seeds, anchors, strict=True))
        self.rows = torch.tensor([list(unique).index(seed) for seed in seeds], device=model.device)
        pixels = [resize_image(anchor.pixels, model.config.resolution) for anchor in unique.values()]
        self.latents = encode(model.vae, to_pixels(background_images(pixels, object_net)))
        shape = (3, *self.latents.shape[1:])
        self.noise = torch.stack([draw_noise(seed, shape)[2] for seed in unique]).to(model.device)
        self.text = model.prompt_embeddings()[0].expand(len(unique), -1, -1)

    def features(self, timestep: Tensor, *, guided: bool) -> dict[str, Tensor]:
        """Attention name → φ(z_b), one row per row of the guided batch's global branch."""
        steps = timestep.long().expand(len(self.latents))
        noisy = self.model.schedule.add_noise(self.latents, self.noise, steps)
        features = self.model.denoiser.background_features(noisy, timestep.long(), self.text)
        rows = self.rows.repeat(2) if guided else self.rows
        return {name: value[rows] for name, value in features.items()}
