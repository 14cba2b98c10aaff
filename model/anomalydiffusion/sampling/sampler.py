"""Samples candidates: draws each one's mask first, then fills the masks of a batch together.

Candidate `i` of a request draws everything (photograph, mask, noise) from `(seed, i)` on the CPU, so it is the same in
any batch: exactly on CPUs, up to rounding on GPUs.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from torch import Tensor

from model.anomalydiffusion.adapter import AnomalyDiffusionAdapter
from model.anomalydiffusion.mask_generator import MaskGenerator
from model.anomalydiffusion.model import unet_for_sampling
from model.anomalydiffusion.sampling.fill import Filling, Painter, begin, develop, fill
from model.anomalydiffusion.sampling.masks import Drawn, MaskSource
from model.data.cutout import window_around
from model.data.placement import NormalImage
from model.data.places import Places
from model.data.type_plan import TypePlan, spread_evenly
from model.data.windows import Canvas, make_canvas, work_scale
from model.diffusion.base import dtype_of
from model.diffusion.vae import autoencoder_for_sampling
from model.kernels.batch_invariance import FIXED_BATCH, fixed_batches
from model.masks.objects import Objects
from model.masks.u2net import U2Net, for_inference
from model.method import always
from model.runtime.cuda_memory import BatchBudget
from model.runtime.progress import Progress
from model.runtime.seeding import pair_seed
from model.runtime.timing import stage
from model.types import Candidate, ImageArray, MaskArray
from service.core.options.anomalydiffusion import AnomalySamplingConfig

Window = tuple[int, int, int, int]

FADE = 2.0
"""Distance from the mask at which the photograph is reached, model pixels. The mask is exact: a change ends with it."""

BICUBIC = 2.0
"""How far enlarging spreads a change, model pixels."""

REPLACED = (12.0, 40.0)
"""Change by filling, grey levels, up to which the photograph keeps its grain, and from which nothing of it is left."""


@dataclass(frozen=True, slots=True)
class FilledPair:
    """A sampled pair that still needs to be put back on its photograph, without any network.

    Attributes:
        canvas: None where no mask could be drawn; the candidate then has an empty mask.
        generated, reconstructed: `(h, w, 3)`, grey levels: the filled canvas, and the normal one after the same
            autoencoder.
        window: of the photograph, that shows the defect as crops of the real ones do.
        defect: name of the defect type, where the adapter has several.
    """

    index: int
    seed: int
    drawn: Drawn
    canvas: Canvas | None = None
    generated: NDArray[np.float32] | None = None
    reconstructed: NDArray[np.float32] | None = None
    window: Window | None = None
    defect: str | None = None

    def to_candidate(self) -> Candidate:
        """Lay the defect on its photograph."""
        image = self.drawn.normal.image
        if self.canvas is not None and self.generated is not None and self.reconstructed is not None:
            image = lay_defect(image, self.canvas, self.generated, self.reconstructed, self.drawn.mask)
        return Candidate(
            self.index,
            self.seed,
            image,
            self.drawn.mask,
            normal=self.drawn.normal.name,
            window=self.window,
            scores={"outside_region": self.drawn.outside} if self.drawn.outside else {},
            defect=self.defect,
        )


def lay_defect(
    image: ImageArray,
    canvas: Canvas,
    generated: NDArray[np.float32],
    reconstructed: NDArray[np.float32],
    mask: MaskArray,
) -> ImageArray:
    """Lay what was generated on a photograph: `N + α (G − R − s (N − R))`.

    N is the photograph, G the filled canvas and R the normal canvas after the same autoencoder. Where filling changed
    little, s is 0 and the photograph keeps its own grain, which the autoencoder loses (`model.data.placement.paste`).
    Where it changed much, s is 1 and the result is G: nothing of what the defect replaced shines through. α is 1 on the
    mask and falls to 0 `FADE` model pixels outside it; farther away the result is the photograph bit for bit.

    Args:
        image: `(H, W, 3)` uint8.
        generated, reconstructed: `(h, w, 3)`, grey levels.
        mask: `(H, W)` bool, the defect on the photograph.
    """
    top, left, bottom, right = canvas.box
    size = (right - left, bottom - top)
    rows, columns = slice(top, min(bottom, image.shape[0])), slice(left, min(right, image.shape[1]))

    def placed(values: NDArray[np.float32]) -> NDArray[np.float32]:
        return _resized(values, size)[: rows.stop - top, : columns.stop - left]

    change = generated - reconstructed
    alpha = np.clip(1 - ndimage.distance_transform_edt(~canvas.mask) / FADE, 0, 1).astype(np.float32)
    strength = ndimage.gaussian_filter(np.abs(change).mean(-1), 1.0)
    replaced = alpha * np.clip((strength - REPLACED[0]) / (REPLACED[1] - REPLACED[0]), 0, 1).astype(np.float32)
    share = np.clip(placed(replaced), 0, 1)
    bands = [
        placed(change[..., band] * alpha) - share * (image[rows, columns, band] - placed(reconstructed[..., band]))
        for band in range(3)
    ]
    reach = FADE if canvas.scale >= 1 else (FADE + BICUBIC) / canvas.scale
    near = ndimage.distance_transform_edt(~mask)[rows, columns] <= reach
    laid = image.copy()
    delta = near[..., None] * np.stack(bands, -1).round()
    laid[rows, columns] = np.clip(image[rows, columns] + delta, 0, 255).astype(np.uint8)
    return laid


def _resized(values: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    if values.shape[::-1] == size:
        return values
    return np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BICUBIC))


@dataclass(frozen=True, slots=True)
class Sampler:
    """Samples a request; holds what all of its batches share, computed once."""

    adapter: AnomalyDiffusionAdapter
    config: AnomalySamplingConfig
    source: MaskSource
    painter: Painter
    budget: BatchBudget

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
        return [self._developed(pair, fillings[pair.index]) if pair.index in fillings else pair for pair in pairs]

    def _begin(self, drawn: Drawn, seed: int, rng: np.random.Generator) -> Filling:
        """Cut out the canvas of a mask, and embed the prompts of its windows."""
        model, config = self.adapter.model, self.adapter.model.config
        scale = work_scale(drawn.mask, config.view, config.resolution)
        canvas = make_canvas(drawn.normal.image, drawn.mask, scale, config.resolution, model.base.factor, rng)
        masks = torch.from_numpy(canvas.windows(canvas.mask)).float()[:, None].to(model.device)

        def embed(rows: Tensor) -> Tensor:
            kinds = torch.full((len(rows),), drawn.kind, device=model.device)
            return model.text(kinds, masks[rows])

        rows = torch.arange(len(masks)).split(FIXED_BATCH)
        return begin(self.painter, canvas, torch.cat([fixed_batches(embed, each) for each in rows]), seed)

    def _window(self, drawn: Drawn, rng: np.random.Generator) -> Window | None:
        config = self.adapter.model.config
        return window_around(drawn.mask, config.view, config.resolution, rng) if drawn.mask.any() else None

    def _developed(self, pair: FilledPair, filling: Filling) -> FilledPair:
        with stage("decode"):
            generated, reconstructed = (
                _levels(each, grey=self.adapter.grey) for each in develop(self.painter, filling)
            )
        return replace(pair, canvas=filling.canvas, generated=generated, reconstructed=reconstructed)


def _levels(pixels: Tensor, *, grey: bool) -> NDArray[np.float32]:
    """Turn pixels `(3, h, w)` into grey levels `(h, w, 3)`; without the base's tint if the photographs are grey."""
    levels = (pixels.clamp(-1, 1) + 1) * 127.5
    if grey:
        levels = levels.mean(0, keepdim=True).expand_as(levels)
    return np.ascontiguousarray(levels.permute(1, 2, 0).float().cpu().numpy())


@torch.no_grad()
def prepare_sampling(
    adapter: AnomalyDiffusionAdapter,
    config: AnomalySamplingConfig,
    *,
    normals: Sequence[NormalImage],
    object_net: U2Net | None = None,
    places: Places | None = None,
    plan: TypePlan | None = None,
) -> Sampler:
    """Prepare a request.

    Args:
        normals: defect-free photographs to draw defects on.
        object_net: finds products.
        places: where the user wants defects.
        plan: the type of each candidate; None to have the adapter's types take turns.

    Raises:
        UsageError: the places cannot be used.
    """
    model, dtype = adapter.model, dtype_of(config.precision)
    objects = Objects(for_inference(object_net, dtype), normals) if object_net is not None else None
    vae, generator = autoencoder_for_sampling(model.base.vae, dtype), None
    if config.mask_source == "learned" and adapter.mask_words is not None:
        plain = unet_for_sampling(model, dtype, filling=False)
        generator = MaskGenerator(model, adapter.mask_words, plain, vae, config.scheduler)
    types = model.types
    plan = plan or (TypePlan(spread_evenly(types, len(types))) if len(types) > 1 else None)
    source = MaskSource(adapter, config, normals, objects, places or Places(), plan, generator)
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
    return Sampler(adapter, config, source, painter, budget)
