"""Samples candidates: draws each one's mask first, then fills the masks of a batch together.

Candidate `i` of a request draws everything (photograph, mask, noise) from `(seed, i)` on the CPU, so it is the same in
any batch: exactly on CPUs, up to rounding on GPUs.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from model.anomalydiffusion.adapter import AnomalyDiffusionAdapter
from model.anomalydiffusion.mask_generator import MaskGenerator
from model.anomalydiffusion.model import unet_for_sampling
from model.anomalydiffusion.sampling.contrast import real_contrast
from model.anomalydiffusion.sampling.fill import Filling, Painter, begin, develop, fill
from model.anomalydiffusion.sampling.masks import Drawn, MaskSource
from model.data.cutout import window_around
from model.data.detail import Levels, RealDetail
from model.data.laying import FADE, Generated, change_by, fade_around, lay_coarse
from model.data.pixels import to_levels
from model.data.placement import NormalImage
from model.data.plan import Plan, plan_pairs
from model.data.two_levels import find_two_levels
from model.data.windows import Canvas, finer_canvas, finer_scale, make_canvas, work_scale
from model.diffusion.base import dtype_of
from model.diffusion.redrawing import lost_detail
from model.diffusion.vae import autoencoder_for_sampling
from model.kernels.batch_invariance import FIXED_BATCH, fixed_batches
from model.masks.objects import Objects
from model.masks.u2net import U2Net, for_inference
from model.method import always
from model.quality.contrast import SCALES, RealContrast, find_scale, lay_scaled
from model.runtime.cuda_memory import BatchBudget
from model.runtime.progress import Progress
from model.runtime.seeding import pair_seed
from model.runtime.timing import stage
from model.types import Candidate, ImageArray, MaskArray
from service.core.options.anomalydiffusion import AnomalySamplingConfig
from service.core.places import Places

Window = tuple[int, int, int, int]

BICUBIC = 2.0
"""How far enlarging spreads a change, model pixels."""


@dataclass(frozen=True, slots=True)
class FilledPair:
    """A sampled pair that still needs to be put back on its photograph, without any network.

    Attributes:
        canvas: None where no mask could be drawn; the candidate then has an empty mask.
        generated, reconstructed: `(h, w, 3)`, grey levels: the filled canvas, and the normal one after the same
            autoencoder.
        window: of the photograph, that shows the defect as crops of the real ones do.
        defect: name of the defect type, where the adapter has several.
        detail: of the type's real defects; None to add none.
        contrast: of the type's real defects; None to leave it as it was drawn.
    """

    index: int
    seed: int
    drawn: Drawn
    canvas: Canvas | None = None
    generated: NDArray[np.float32] | None = None
    reconstructed: NDArray[np.float32] | None = None
    window: Window | None = None
    defect: str | None = None
    detail: RealDetail | None = None
    contrast: RealContrast | None = None

    def to_candidate(self) -> Candidate:
        """Lay the defect on its photograph; a mask that the user gave stays as it is."""
        good, mask = self.drawn.normal.image, self.drawn.mask
        image = good
        if self.canvas is not None and self.generated is not None and self.reconstructed is not None:
            image = lay_defect(
                good,
                self.canvas,
                self.generated,
                self.reconstructed,
                mask,
                self.detail,
                self.seed,
                self.contrast.draw(self.seed) if self.contrast is not None else None,
                self.contrast.weakest if self.contrast is not None else 1.0,
            )
            if self.detail is not None and self.detail.levels is not None and self.drawn.given is None:
                mask = self.detail.levels.end_with_change(mask, image, good)
                beside = self.drawn.mask & ~mask
                image[beside] = good[beside]
        return Candidate(
            self.index,
            self.seed,
            image,
            mask,
            normal=self.drawn.normal.name,
            window=self.window,
            scores={"outside_region": self.drawn.outside} if self.drawn.outside else {},
            defect=self.defect,
            given=self.drawn.given,
        )


def lay_defect(
    image: ImageArray,
    canvas: Canvas,
    generated: NDArray[np.float32],
    reconstructed: NDArray[np.float32],
    mask: MaskArray,
    detail: RealDetail | None,
    seed: int,
    wanted: float | None,
    weakest: float = SCALES[0],
) -> ImageArray:
    """Lay what was generated on a photograph, see `model.data.laying`.

    α is 1 on the mask and falls to 0 `FADE` model pixels outside it; farther away the result is the photograph bit for
    bit.

    Args:
        image: `(H, W, 3)` uint8.
        generated, reconstructed: `(h, w, 3)`, grey levels.
        mask: `(H, W)` bool, the defect on the photograph.
        detail: of real defects of the type; None to add none.
        seed: of the candidate.
        wanted: contrast that the defect adds to the surface's, by scaling; None to lay it as it is.
        weakest: smallest scale.
    """
    top, left, bottom, right = canvas.box
    window = np.s_[top:bottom, left:right]
    filled = Generated(generated, reconstructed, fade_around(canvas.mask), filled=True)
    surface, own = image[window], mask[window]
    change = change_by(filled, surface, own, (right - left, bottom - top), detail, seed)
    scale = 1.0 if wanted is None else find_scale(wanted, change, surface, own, weakest)
    reach = FADE if canvas.scale >= 1 else (FADE + BICUBIC) / canvas.scale
    near = ndimage.distance_transform_edt(~mask)[window] <= reach
    laid = image.copy()
    laid[window] = lay_scaled(change, surface, scale, near)
    return laid


@dataclass(frozen=True, slots=True)
class Sampler:
    """Samples a request; holds what all of its batches share, computed once.

    Attributes:
        details: of the real defects of every type; None to add none.
        finer_details: the same for a second pass, which loses less of it.
        contrasts: of the real defects of every type; None to leave them as they are drawn.
    """

    adapter: AnomalyDiffusionAdapter
    config: AnomalySamplingConfig
    source: MaskSource
    painter: Painter
    budget: BatchBudget
    details: Sequence[RealDetail | None]
    finer_details: Sequence[RealDetail | None]
    contrasts: Sequence[RealContrast | None]

    @torch.no_grad()
    def decoded(
        self, start: int, stop: int, is_needed: Callable[[int], bool] = always
    ) -> Generator[Progress | FilledPair, None, None]:
        """Sample the candidates `start` to `stop - 1` that are needed, batch after batch."""
        batch = self.config.batch
        for first in range(start - start % batch, stop, batch):
            pairs = yield from self._batch(list(filter(is_needed, range(first, first + batch))))
            yield from (pair for pair in pairs if start <= pair.index < stop)

    def _batch(self, indices: Sequence[int]) -> Generator[Progress, None, list[FilledPair]]:
        pairs: list[FilledPair] = []
        fillings: dict[int, Filling] = {}
        for index in indices:
            seed = pair_seed(self.config.seed, index)
            rng = np.random.default_rng(seed)
            drawn = self.source.draw(index, rng)
            if drawn.mask.any():
                with stage("encode"):
                    fillings[index] = self._begin(drawn, seed, rng)
            types = self.adapter.model.types
            defect = types[drawn.kind] if len(types) > 1 else None
            pairs.append(FilledPair(index, seed, drawn, window=self._window(drawn, rng), defect=defect))
        if fillings:
            with stage("denoise"):
                yield from fill(self.painter, list(fillings.values()))
            if self.config.refine_strength:
                yield from self._refine(pairs, fillings)
        return [self._developed(pair, fillings[pair.index]) if pair.index in fillings else pair for pair in pairs]

    def _begin(self, drawn: Drawn, seed: int, rng: np.random.Generator) -> Filling:
        """Cut out the canvas of a mask, and embed the prompts of its windows."""
        config = self.adapter.model.config
        scale = work_scale(drawn.mask, config.view, config.resolution)
        canvas = make_canvas(drawn.normal.image, drawn.mask, scale, config.resolution, self.painter.factor, rng)
        push = self.config.normal_guidance or self.adapter.normal_guidance_of(drawn.kind)
        return begin(self.painter, canvas, self._prompts(canvas, drawn.kind), seed, push)

    def _prompts(self, canvas: Canvas, kind: int) -> Tensor:
        """Embed the prompts of a canvas's windows, `(n, L, D)`."""
        model = self.adapter.model
        masks = torch.from_numpy(canvas.windows(canvas.mask)).float()[:, None].to(model.device)

        def embed(rows: Tensor) -> Tensor:
            return model.text(torch.full((len(rows),), kind, device=model.device), masks[rows])

        rows = torch.arange(len(masks)).split(FIXED_BATCH)
        return torch.cat([fixed_batches(embed, each) for each in rows])

    def _refine(self, pairs: Sequence[FilledPair], fillings: dict[int, Filling]) -> Generator[Progress, None, None]:
        """Fill what was drawn much smaller than its photograph once more, at a finer scale."""
        finer: dict[int, Filling] = {}
        with stage("encode"):
            for pair in pairs:
                filling = fillings.get(pair.index)
                if filling is not None and (scale := finer_scale(filling.canvas.scale)) is not None:
                    finer[pair.index] = self._begin_again(pair, filling, scale)
        if finer:
            with stage("denoise"):
                yield from fill(self.painter, list(finer.values()))
        fillings.update(finer)

    def _begin_again(self, pair: FilledPair, filling: Filling, scale: float) -> Filling:
        """Enlarge a filled canvas; it has its contrast already, and is pushed away from the normal no more."""
        drawn, coarse = pair.drawn, filling.canvas
        canvas = finer_canvas(coarse, drawn.normal.image, drawn.mask, scale, self.painter.factor)
        (top, left, bottom, right), image = coarse.box, canvas.image.copy()
        shared = np.s_[: round((bottom - top) * canvas.scale), : round((right - left) * canvas.scale)]
        generated = Generated(*self._pixels(filling), fade_around(coarse.mask), filled=True)
        image[shared] = lay_coarse(generated, image[shared])
        prompts = self._prompts(canvas, drawn.kind)
        return begin(self.painter, canvas, prompts, pair.seed, 1.0, image)

    def _window(self, drawn: Drawn, rng: np.random.Generator) -> Window | None:
        config = self.adapter.model.config
        return window_around(drawn.mask, config.view, config.resolution, rng) if drawn.mask.any() else None

    def _pixels(self, filling: Filling) -> tuple[Levels, Levels]:
        """Decode a filled canvas and the normal one, `(h, w, 3)`, grey levels."""
        generated, reconstructed = develop(self.painter, filling)
        return to_levels(generated, grey=self.adapter.grey), to_levels(reconstructed, grey=self.adapter.grey)

    def _developed(self, pair: FilledPair, filling: Filling) -> FilledPair:
        with stage("decode"):
            generated, reconstructed = self._pixels(filling)
        kind = pair.drawn.kind
        details = self.details if filling.drawn is None else self.finer_details
        return replace(
            pair,
            canvas=filling.canvas,
            generated=generated,
            reconstructed=reconstructed,
            detail=details[kind],
            contrast=self.contrasts[kind],
        )


@torch.no_grad()
def prepare_sampling(
    adapter: AnomalyDiffusionAdapter,
    config: AnomalySamplingConfig,
    *,
    normals: Sequence[NormalImage],
    object_net: U2Net | None = None,
    places: Places | None = None,
    plan: Plan | None = None,
) -> Sampler:
    """Prepare a request.

    Args:
        normals: defect-free photographs to draw defects on.
        object_net: finds products.
        places: where the user wants defects.
        plan: the type and given mask of each candidate; None to have types and masks take turns.

    Raises:
        UsageError: the places cannot be used.
    """
    model, dtype = adapter.model, dtype_of(config.precision)
    objects = None
    if object_net is not None and find_two_levels(adapter.references) is None:  # of a pattern, a network sees a part
        objects = Objects(for_inference(object_net, dtype), normals)
    vae, generator = autoencoder_for_sampling(model.base.vae, dtype), None
    if config.mask_source == "learned" and adapter.mask_words is not None:
        plain = unet_for_sampling(model, dtype, filling=False)
        generator = MaskGenerator(model, adapter.mask_words, plain, vae, config.scheduler)
    types, places = model.types, places or Places()
    plan = plan or plan_pairs(types, len(types) * max(1, len(places.masks)), masks=places.masks)
    source = MaskSource(adapter, config, normals, objects, places, plan, generator)
    source.check()
    budget = BatchBudget(config.batch)
    painter = Painter(
        unet_for_sampling(model, dtype),
        vae,
        model.schedule,
        model.base.scheduler,
        config,
        model.anomaly_words,
        model.shown is not None,
        model.empty_text() if config.guidance_scale != 1 else None,
        budget,
        model.base.factor,
    )
    matched = model.config.match_contrast and not config.normal_guidance
    contrasts = [real_contrast(adapter, kind) if matched else None for kind in range(len(types))]
    details = _details(adapter, config, vae, lambda scale: scale)
    finer = _details(adapter, config, vae, lambda scale: finer_scale(scale) or scale) if config.refine_strength else ()
    return Sampler(adapter, config, source, painter, budget, details, finer, contrasts)


def _details(
    adapter: AnomalyDiffusionAdapter,
    config: AnomalySamplingConfig,
    vae: AutoencoderKL,
    drawn_at: Callable[[float], float],
) -> list[RealDetail | None]:
    """Learn the detail of the real defects, type by type.

    Args:
        drawn_at: returns at which scale a defect is drawn in a pass, of that at which it is in the first.
    """
    types, training = adapter.model.types, adapter.model.config
    if not config.match_detail:
        return [None] * len(types)

    def scale(mask: MaskArray) -> float:
        return drawn_at(work_scale(mask, training.view, training.resolution))

    return [
        lost_detail(
            vae,
            adapter.references_of(name),
            scale,
            training.resolution,
            adapter.model.base.factor,
            grey=adapter.grey,
        )
        for name in types
    ]
