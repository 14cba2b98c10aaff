"""Samples pairs: denoises both branches together, batched over pairs and guidance, with one seed per pair.

Pair `i` of a request draws everything (noise of both branches, normal image, window) from `(seed, i)` on the CPU, so
it is the same in any batch: exactly on CPUs, up to rounding on GPUs.
With normal images, sampling is *anchored* on them, see `model.dualanodiff.sampling.anchoring`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from model.data.copy_paste import CopyPaste
from model.data.crops import canvas_side
from model.data.detail import RealDetail
from model.data.drawing import draw_in_turn
from model.data.placement import Anchor, NormalImage, Region, draw_anchor
from model.data.two_levels import TwoLevels, find_two_levels
from model.diffusion.base import dtype_of
from model.diffusion.redrawing import lost_detail
from model.diffusion.vae import autoencoder_for_sampling, decode
from model.dualanodiff.adapter import DualAnoDiffAdapter
from model.dualanodiff.sampling.anchoring import Anchoring, anchor_on, grey_latent
from model.dualanodiff.sampling.bcm_features import MOST_KEPT, Compensation
from model.dualanodiff.sampling.copies import draw_copy
from model.dualanodiff.sampling.cuda_graphs import Compiler, predictor
from model.dualanodiff.sampling.decode import DecodedPair, decode_pairs
from model.dualanodiff.sampling.given_parts import is_line, must_fit
from model.dualanodiff.sampling.loop import Features, Predict, denoise
from model.dualanodiff.sampling.merged_unet import denoiser_for_sampling
from model.dualanodiff.sampling.refining import finer_side, prepare_refinement
from model.masks.objects import Objects
from model.masks.u2net import U2Net, for_inference
from model.method import always
from model.quality.contrast import RealContrast, measure_contrast
from model.runtime.concurrency import overlapped
from model.runtime.cuda_memory import BatchBudget, measured_budget
from model.runtime.progress import Progress
from model.runtime.seeding import FINER_NOISE, NOISE, draw_noise, pair_seed, steps_generator
from model.runtime.timing import stage
from model.types import Candidate, MaskArray, Pair
from service.core.errors import UsageError
from service.core.options.combinations import NO_MASK_NET, NOT_ANCHORED
from service.core.options.common import MaskMethod
from service.core.options.dualanodiff import SamplingConfig
from service.core.options.learned import WHOLE
from service.core.places import Places, refuse_places

ANCHORED_BCM = (
    "bcm has next to no effect here, because pairs are generated on your normals, whose own background is kept: "
    "turn anchored off to see what bcm does"
)


@dataclass(frozen=True, slots=True)
class Sampler:
    """Samples a request; holds what all of its batches share, computed once.

    Attributes:
        adapter: the adapter, with denoiser and mask network prepared for inference.
        text: `(2, G, L, D)` prompt embeddings; G is 2 with guidance, the empty prompt's last.
        grey: latent of mid-grey in anchored sampling, otherwise None.
        compensation: makes BCM's features for an adapter with BCM, otherwise None.
        budget: how many pairs fit into memory together; learnt while sampling.
        predict: runs the adapter's denoiser as fast as the device can.
        wanted: where on a normal image the user wants defects; None for everywhere.
        detail: of the real defects; None to add none.
        finer_detail: the same for a second pass, which loses less of it.
        product: the product on a normal image, on which defects lie; None for none.
        contrast: of the real defects, for exact given parts; None where it is what it is.
        levels: of the photographs, where they have but two.
        given: numbers of the real defects whose parts, changed, the anomaly branch is given.
    """

    adapter: DualAnoDiffAdapter
    config: SamplingConfig
    normals: Sequence[NormalImage]
    text: Tensor
    grey: Tensor | None
    compensation: Compensation | None
    budget: BatchBudget
    predict: Predict
    wanted: Region
    detail: RealDetail | None
    finer_detail: RealDetail | None
    product: Region
    contrast: RealContrast | None
    levels: TwoLevels | None
    given: frozenset[int]

    @property
    def guided(self) -> bool:
        """Return whether the empty prompt is also denoised, for guidance."""
        return self.text.shape[1] == 2

    def decoded(
        self, start: int, stop: int, is_needed: Callable[[int], bool] = always
    ) -> Generator[Progress | DecodedPair, None, None]:
        """Sample candidates `start` to `stop - 1`, see `sample_decoded`; of a batch, all or none."""
        batch = self.config.batch
        for begin in range(start - start % batch, stop, batch):
            first, end = max(start, begin), min(stop, begin + batch)
            if any(map(is_needed, range(first, end))):
                yield from sample_decoded(self, first, end)


@torch.no_grad()
def prepare_sampling(
    adapter: DualAnoDiffAdapter,
    config: SamplingConfig,
    *,
    normals: Sequence[NormalImage] = (),
    object_net: U2Net | None = None,
    places: Places | None = None,
    compiler: Compiler | None = None,
) -> Sampler:
    """Prepare a request; an adapter that is trained further must be prepared again.

    Args:
        normals: defect-free images; needed for anchored sampling, and for the backgrounds of an adapter with BCM.
        object_net: finds objects for BCM's backgrounds, and products to lay defects on.
        places: where the user wants defects.
        compiler: compiles passes on CUDA devices, for processes that run long enough; None to compile nothing.

    Raises:
        UsageError: if an adapter with BCM gets no normals or no network that finds objects, or the mask method needs a
            network that the adapter does not have; or regions leave no place.
    """
    given = {"has_normals": bool(normals), "has_object_net": object_net is not None}
    if missing := missing_for_sampling(adapter, config, **given):
        raise UsageError(missing)
    places = places or Places()
    dtype, model = dtype_of(config.precision), adapter.model
    levels = find_two_levels(adapter.references)
    product = _product_finder(config, normals, object_net, levels)
    wanted = _wanted(config, places, normals)
    normals = places.used(normals)
    denoiser = denoiser_for_sampling(model.denoiser, model.base.unet, dtype)
    ready = replace(
        adapter,
        model=replace(
            model,
            base=replace(model.base, vae=autoencoder_for_sampling(model.vae, dtype)),
            denoiser=denoiser,
        ),
        mask_net=for_inference(adapter.mask_net, dtype) if adapter.mask_net is not None else None,
    )
    text = model.prompt_embeddings()
    compensation = None
    if model.config.bcm and object_net is not None:
        compensation = Compensation(ready, config.seed, text[0], normals, for_inference(object_net, dtype))
    whose_parts = _given(ready, config, levels)
    if config.guidance_scale != 1 or whose_parts:
        text = torch.cat([text, model.empty_embedding().expand(2, 1, -1, -1)], dim=1)
    with stage("encode"):
        grey = grey_latent(ready) if config.anchored else None
    works = (lambda pairs: _passed(ready, text, pairs), lambda pairs: _decoded(ready, pairs))
    budget = measured_budget(model.device, works, config.batch, kept=MOST_KEPT if compensation is not None else 0)
    predict = predictor(denoiser, model.device, compiler)
    contrast = measure_contrast(_by_photograph(ready.references)) if whose_parts else None
    detail = finer_detail = None
    if config.anchored and config.match_detail:
        detail, finer_detail = _details(ready, config)
    return Sampler(
        adapter=ready,
        config=config,
        normals=normals,
        text=text,
        grey=grey,
        compensation=compensation,
        budget=budget,
        predict=predict,
        wanted=wanted,
        detail=detail,
        finer_detail=finer_detail,
        product=product,
        contrast=contrast,
        levels=levels,
        given=whose_parts,
    )


def _given(adapter: DualAnoDiffAdapter, config: SamplingConfig, levels: TwoLevels | None) -> frozenset[int]:
    """Return the numbers of the real defects whose parts are given; none without SAIM, as no image would follow."""
    model = adapter.model.config
    if not config.part_guidance or not config.anchored or config.sketch_strength or not model.saim or model.bcm:
        return frozenset()
    references = adapter.references
    if levels is not None or must_fit(references):
        return frozenset(range(len(references)))
    return frozenset(number for number, pair in enumerate(references) if is_line(pair.mask, model))


def _by_photograph(references: Sequence[Pair]) -> list[list[Pair]]:
    """Group crops by the photographs that they are of; those of one follow each other."""
    return [list(crops) for _, crops in groupby(references, key=lambda pair: pair.name)]


def _refines(adapter: DualAnoDiffAdapter, config: SamplingConfig) -> bool:
    """Return whether there may be a second pass."""
    return config.anchored and config.refine_strength > 0 and not adapter.model.config.bcm


def _details(adapter: DualAnoDiffAdapter, config: SamplingConfig) -> tuple[RealDetail | None, RealDetail | None]:
    """Learn the detail of the real defects that the first pass loses, and that the second one does."""
    training, base = adapter.model.config, adapter.model.base
    resolution = training.resolution

    def first_side(mask: MaskArray) -> int:
        return resolution if training.bcm else canvas_side(mask, mask.shape[0], training.view, resolution)

    def second_side(mask: MaskArray) -> int | None:
        return finer_side(first_side(mask), mask.shape[0], resolution)

    def learn(side: Callable[[MaskArray], int]) -> RealDetail | None:
        grey = bool(adapter.card["greyscale"])
        vae, references = adapter.model.vae, adapter.references
        return lost_detail(vae, references, lambda mask: side(mask) / mask.shape[0], resolution, base.factor, grey=grey)

    detail = learn(first_side)
    again = _refines(adapter, config) and any(pair.mask.any() and second_side(pair.mask) for pair in adapter.references)
    return detail, learn(lambda mask: second_side(mask) or first_side(mask)) if again else detail


def _wanted(config: SamplingConfig, places: Places, normals: Sequence[NormalImage]) -> Region:
    """Return what says where on a normal image the user wants defects.

    Raises:
        UsageError: regions leave no place, or pairs are not generated on normals.
    """
    refuse_places(places, "dualanodiff", config.as_dict())
    if not config.anchored and (places or config.region != WHOLE):
        raise UsageError(NOT_ANCHORED)
    places.check(normals, box=config.region)

    def wanted(normal: NormalImage) -> MaskArray | None:
        where = places.where(normal, config.region)
        return np.ones(normal.image.shape[:2], np.bool_) if where is None and config.anywhere else where

    return wanted


def _product_finder(
    config: SamplingConfig, normals: Sequence[NormalImage], object_net: U2Net | None, levels: TwoLevels | None
) -> Region:
    """Return what finds the product on a normal image; of a pattern of two levels, a network would see a part."""
    if object_net is None or levels is not None or not (config.anchored and config.on_object):
        return lambda _: None
    objects = Objects(for_inference(object_net, dtype_of(config.precision)), normals)
    return lambda normal: objects.in_normal(normal.name)


def missing_for_sampling(
    adapter: DualAnoDiffAdapter, config: SamplingConfig, *, has_normals: bool, has_object_net: bool
) -> list[str]:
    """List what adapter and settings need but do not get."""
    missing = []
    if config.mask_method is MaskMethod.U2NET and adapter.mask_net is None:
        missing.append(NO_MASK_NET)
    if adapter.model.config.bcm and not has_normals:
        missing.append("the adapter was trained with bcm, whose backgrounds are normal images: provide normals")
    if adapter.model.config.bcm and not has_object_net:
        missing.append(
            "the adapter was trained with bcm, which needs a network that finds objects: provide one with --object-net"
        )
    return missing


def _passed(adapter: DualAnoDiffAdapter, text: Tensor, pairs: int) -> None:
    """Run one pass of the denoiser for `pairs` pairs; a captured pass keeps the memory of its activations."""
    model = adapter.model
    latents = torch.zeros((2, pairs * text.shape[1], *_latent_shape(adapter)), device=model.device)
    model.denoiser(latents, torch.tensor(0, device=model.device), text.repeat_interleave(pairs, dim=1))


def _decoded(adapter: DualAnoDiffAdapter, pairs: int) -> None:
    decode(adapter.model.vae, torch.zeros((pairs, *_latent_shape(adapter)), device=adapter.model.device))


def _latent_shape(adapter: DualAnoDiffAdapter) -> tuple[int, int, int]:
    base = adapter.model.base
    cells = adapter.model.config.resolution // base.factor
    return base.latent_channels, cells, cells


def sample_pairs(sampler: Sampler, start: int, stop: int) -> Generator[Candidate, None, None]:
    """Generate candidates `start` to `stop - 1`, batch after batch; stop iterating to stop, start later to resume.

    A pair always has the same place in a batch of the same shape (number `index % batch`), and on CPUs it is the same
    in any batch, so the same request gives the same bytes in any number of calls. On GPUs passes round differently once
    they are compiled, or when memory runs out.
    """
    decoded = sample_decoded(sampler, start, stop)
    for item in overlapped(decoded, DecodedPair.to_candidate, ahead=sampler.config.batch):
        if isinstance(item, Candidate):
            yield item


@torch.no_grad()
def sample_decoded(sampler: Sampler, start: int, stop: int) -> Generator[Progress | DecodedPair, None, None]:
    """Sample like `sample_pairs`, but yield progress after every denoising step, and pairs not yet completed.

    Raises:
        torch.OutOfMemoryError: if a single pair does not fit into memory.
    """
    batch = sampler.config.batch
    if start == 0 and sampler.compensation is not None and sampler.config.anchored:
        yield Progress("denoise", 0, sampler.config.steps, "steps", note=ANCHORED_BCM)
    for begin in range(start - start % batch, stop, batch):
        rest = range(begin, begin + batch)
        while rest:
            indices = rest[: sampler.budget.share(batch)]
            decoded: list[DecodedPair] | None = None
            try:
                decoded = yield from _sample_batch(sampler, indices)
            except torch.OutOfMemoryError:
                if len(indices) == 1:
                    raise
            if decoded is None:  # outside of the handler, so that the error no longer keeps tensors alive
                sampler.budget.halve(len(indices))
                note = f"not enough memory: from now on {sampler.budget.pairs} pairs at a time"
                yield Progress("denoise", 0, sampler.config.steps, "steps", note=note)
                continue
            yield from (decoded_pair for decoded_pair in decoded if start <= decoded_pair.index < stop)
            rest = rest[len(indices) :]


def _sample_batch(sampler: Sampler, indices: Sequence[int]) -> Generator[Progress, None, list[DecodedPair]]:
    adapter, config = sampler.adapter, sampler.config
    seeds = [pair_seed(config.seed, index) for index in indices]
    with stage("encode"):
        anchors, anchoring = _anchored(sampler, indices, seeds)
        background = _background(sampler, indices, seeds, anchors)
    pairs = yield from _one_pass(sampler, config, indices, anchors, anchoring, background)
    if anchoring is None or not _refines(adapter, config):
        return pairs
    with stage("encode"):
        finer = prepare_refinement(adapter, pairs, anchoring)
    if finer is None:
        return pairs
    again = replace(config, strength=config.refine_strength, sketch_strength=0.0)
    second = replace(sampler, detail=sampler.finer_detail)
    refined = yield from _one_pass(second, again, finer.indices, finer.anchors, finer.anchoring, use=FINER_NOISE)
    found = {pair.index: pair for pair in refined}
    return [found.get(pair.index, pair) for pair in pairs]


def _one_pass(
    sampler: Sampler,
    config: SamplingConfig,
    indices: Sequence[int],
    anchors: Sequence[Anchor] | None,
    anchoring: Anchoring | None,
    background: Features | None = None,
    *,
    use: int = NOISE,
) -> Generator[Progress, None, list[DecodedPair]]:
    """Denoise and decode a batch.

    Args:
        config: of this pass.
        anchors, anchoring: as in anchored sampling; None without.
        background: BCM's features, for an adapter with BCM.
        use: tells the passes' noise apart.
    """
    adapter = sampler.adapter
    seeds = [pair_seed(config.seed, index) for index in indices]
    noise = _noise(adapter, seeds, anchoring, use).to(adapter.model.device)
    generators = [steps_generator(seed, use=use) for seed in seeds]
    with stage("denoise"):
        latents, attention = yield from denoise(
            adapter.model,
            sampler.predict,
            config,
            sampler.text,
            noise,
            generators,
            at_once=sampler.budget.share(config.batch),
            anchoring=anchoring,
            background=background,
        )
    return decode_pairs(
        adapter,
        config,
        latents,
        indices,
        seeds,
        attention=attention,
        anchors=anchors,
        anchoring=anchoring,
        detail=sampler.detail,
        contrast=sampler.contrast,
    )


def _noise(adapter: DualAnoDiffAdapter, seeds: Sequence[int], anchoring: Anchoring | None, use: int) -> Tensor:
    """Draw `(2, B, C, h, w)`; on canvases of several sizes, each pair's own part, beside which there is none."""
    channels, cells, _ = _latent_shape(adapter)
    if anchoring is None or anchoring.tiling is None:
        return torch.stack([draw_noise(seed, (2, channels, cells, cells), use=use) for seed in seeds], dim=1)
    noise = torch.zeros(2, *anchoring.normal.shape)
    for row, (seed, side) in enumerate(zip(seeds, anchoring.sides, strict=True)):
        noise[:, row, :, :side, :side] = draw_noise(seed, (2, channels, side, side), use=use)
    return noise


def _anchored(
    sampler: Sampler, indices: Sequence[int], seeds: Sequence[int]
) -> tuple[list[Anchor] | None, Anchoring | None]:
    """Draw the windows of normal images, in turn, that a batch is anchored on, and encode them."""
    if sampler.grey is None:
        return None, None
    adapter, config, flips = sampler.adapter, sampler.config, sampler.adapter.model.config.flips
    rngs = [np.random.default_rng(seed) for seed in seeds]
    normals = [draw_in_turn(sampler.normals, index, config.seed) for index in indices]
    sketched = config.sketch_strength > 0
    anchors: list[Anchor] = []
    copies: list[CopyPaste | None] = []
    for normal, rng in zip(normals, rngs, strict=True):
        anchor = draw_anchor([normal], adapter.placements, rng, flips, sampler.wanted, config.sizes, sampler.product)
        copy = None
        if anchor.place in sampler.given:  # its window is drawn anew, around the copy
            anchor, copy = draw_copy(
                adapter,
                normal,
                sampler.normals,
                anchor.place,
                sampler.levels,
                sampler.wanted,
                sampler.product,
                rng,
                config.sizes,
            )
        anchors.append(anchor)
        copies.append(copy)
    anchoring = anchor_on(adapter, anchors, rngs, sampler.grey, sketched=sketched, copies=copies)
    return anchors, anchoring


def _background(
    sampler: Sampler, indices: Sequence[int], seeds: Sequence[int], anchors: list[Anchor] | None
) -> Features | None:
    if sampler.compensation is None:
        return None
    if anchors is None:
        return sampler.compensation.shared(indices, guided=sampler.guided)
    return sampler.compensation.anchored(anchors, seeds, guided=sampler.guided)
