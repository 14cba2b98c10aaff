"""Samples candidates: draws each one's mask first, then fills the masks of a batch together.

Candidate `i` of a request draws everything (photograph, mask, noise) from `(seed, i)` on the CPU, so it is the same in
any batch: exactly on CPUs, up to rounding on GPUs.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
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
from model.data.placement import REACH, NormalImage, feathered
from model.data.places import Places
from model.data.windows import Canvas, make_canvas, work_scale
from model.diffusion.base import dtype_of
from model.diffusion.vae import autoencoder_for_sampling
from model.kernels.batch_invariance import FIXED_BATCH, fixed_batches
from model.masks.objects import Objects
from model.masks.u2net import U2Net, for_inference
from model.runtime.cuda_memory import BatchBudget
from model.runtime.progress import Progress
from model.runtime.seeding import pair_seed
from model.runtime.timing import stage
from model.types import Candidate, ImageArray, MaskArray
from service.core.options.anomalydiffusion import AnomalySamplingConfig

Window = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class FilledPair:
    """A sampled pair that still needs to be put back on its photograph, without any network.

    Attributes:
        canvas: None where no mask could be drawn; the candidate then has an empty mask.
        change: `(h, w, 3)`, what filling changed on the canvas, grey levels.
        window: of the photograph, that shows the defect as crops of the real ones do.
        defect: name of the defect type, where the adapter has several.
    """

    index: int
    seed: int
    drawn: Drawn
    canvas: Canvas | None = None
    change: NDArray[np.float32] | None = None
    window: Window | None = None
    defect: str | None = None

    def to_candidate(self) -> Candidate:
        """Lay the defect on its photograph."""
        image = self.drawn.normal.image
        if self.canvas is not None and self.change is not None:
            image = lay_change(image, self.canvas, self.change, self.drawn.mask)
        return Candidate(
            self.index,
            self.seed,
            image,
            self.drawn.mask,
            normal=self.drawn.normal.name,
            window=self.window,
            defect=self.defect,
        )


def lay_change(image: ImageArray, canvas: Canvas, change: NDArray[np.float32], mask: MaskArray) -> ImageArray:
    """Add what filling changed to a photograph: `N + α (G − R)`, as `model.data.placement.paste` does for one window.

    α is 1 on the mask and falls to 0 a few pixels outside it; farther away the result is the photograph bit for bit.

    Args:
        image: `(H, W, 3)` uint8.
        change: `(h, w, 3)`, generated minus reconstructed canvas, grey levels.
        mask: `(H, W)` bool, the defect on the photograph.
    """
    alpha = feathered(canvas.mask)
    top, left, bottom, right = canvas.box
    size = (right - left, bottom - top)
    bands = [_resized(change[..., band] * alpha, size) for band in range(3)]
    rows, columns = slice(top, min(bottom, image.shape[0])), slice(left, min(right, image.shape[1]))
    delta = np.stack(bands, -1)[: rows.stop - top, : columns.stop - left].round()
    near = ndimage.distance_transform_edt(~mask)[rows, columns] <= (2 * REACH + 1) / min(canvas.scale, 1.0)
    laid = image.copy()
    laid[rows, columns] = np.clip(image[rows, columns] + near[..., None] * delta, 0, 255).astype(np.uint8)
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
    def decoded(self, start: int, stop: int) -> Generator[Progress | FilledPair, None, None]:
        """Sample candidates `start` to `stop - 1`, batch after batch."""
        batch = self.config.batch
        for first in range(start - start % batch, stop, batch):
            pairs = yield from self._batch(range(first, first + batch))
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
            generated, reconstructed = develop(self.painter, filling)
            change = (generated.clamp(-1, 1) - reconstructed.clamp(-1, 1)) * 127.5
            if self.adapter.grey:
                change = change.mean(0, keepdim=True).expand_as(change)
        levels = np.ascontiguousarray(change.permute(1, 2, 0).float().cpu().numpy())
        return replace(pair, canvas=filling.canvas, change=levels)


@torch.no_grad()
def prepare_sampling(
    adapter: AnomalyDiffusionAdapter,
    config: AnomalySamplingConfig,
    *,
    normals: Sequence[NormalImage],
    object_net: U2Net | None = None,
    places: Places | None = None,
) -> Sampler:
    """Prepare a request.

    Args:
        normals: defect-free photographs to draw defects on.
        object_net: finds products.
        places: where the user wants defects.

    Raises:
        UsageError: the places cannot be used.
    """
    model, dtype = adapter.model, dtype_of(config.precision)
    objects = Objects(for_inference(object_net, dtype), normals) if object_net is not None else None
    vae, generator = autoencoder_for_sampling(model.base.vae, dtype), None
    if config.mask_source == "learned" and adapter.mask_words is not None:
        plain = unet_for_sampling(model, dtype, filling=False)
        generator = MaskGenerator(model, adapter.mask_words, plain, vae, config.scheduler)
    source = MaskSource(adapter, config, normals, objects, places or Places(), generator)
    source.check()
    budget = BatchBudget(config.batch)
    painter = Painter(
        unet_for_sampling(model, dtype),
        vae,
        model.schedule,
        model.base.scheduler,
        config,
        model.anomaly_words,
        model.empty_text() if config.guidance_scale != 1 else None,
        budget,
        model.base.factor,
    )
    return Sampler(adapter, config, source, painter, budget)
