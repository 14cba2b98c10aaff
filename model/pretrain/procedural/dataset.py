"""Writes procedural views to disk: safetensors shards, each of scenes with consecutive seeds.

Every scene gives two square views of the base's size, both placed at random about a point of its defect: one at the
scene's own scale, so that a defect of ten pixels keeps them, and one of a wider part of the scene, up to all of it,
shrunk as photographs are (`model.data.crops`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from safetensors.numpy import save_file

from model.data.crops import Window, cut_image, cut_mask
from model.pretrain.procedural.noise import Rng
from model.pretrain.procedural.scene import Sample, render
from model.types import ImageArray, MaskArray
from service.core.atomic_write import atomic_file
from service.core.strict_json import to_json

VIEWS = 2
"""Views per scene: the close one, then the wider one."""

SHARD_SCENES = 500
"""Scenes per shard."""


@dataclass(frozen=True, slots=True)
class View:
    """One square view: `(P, P, 3)` uint8 with and without the defect, `(P, P)` bool masks of defect and object."""

    image: ImageArray
    normal: ImageArray
    mask: MaskArray
    object_mask: MaskArray


def scene_views(sample: Sample, pixels: int, rng: Rng) -> list[View]:
    """Cut the close and the wider view of a scene, with sides of `pixels`; every mask has at least one pixel."""
    size = len(sample.mask)
    wider = round(float(np.exp(rng.uniform(np.log(pixels), np.log(size)))))
    rows, columns = np.nonzero(sample.mask)
    views = []
    for side in (pixels, wider):
        point = rng.integers(len(rows))
        left = int(np.clip(columns[point] - rng.integers(side), 0, size - side))
        top = int(np.clip(rows[point] - rng.integers(side), 0, size - side))
        window = Window(left, top, side)
        views.append(
            View(
                cut_image(sample.image, window, pixels),
                cut_image(sample.normal, window, pixels),
                cut_mask(sample.mask, window, pixels),
                # The object may be out of view; unlike a missing defect, this is no error.
                cut_mask(sample.object_mask, window, pixels)
                if sample.object_mask[window.slices].any()
                else np.zeros((pixels, pixels), np.bool_),
            )
        )
    return views


def render_shard(path: Path, first_seed: int, scenes: int, size: int, pixels: int) -> None:
    """Render seeds `first_seed` to `first_seed + scenes - 1` into `path`; a shard exists completely or not at all.

    Args:
        size: side of a scene, pixels.
        pixels: side of a view, at most `size`.
    """
    views: list[View] = []
    names: list[tuple[str, str]] = []
    for seed in range(first_seed, first_seed + scenes):
        sample = render(seed, size)
        views += scene_views(sample, pixels, np.random.default_rng([seed, size, pixels]))
        names += [(sample.object_name, sample.defect_name)] * VIEWS
    arrays = {
        "images": np.stack([view.image for view in views]),
        "normals": np.stack([view.normal for view in views]),
        "masks": np.stack([view.mask for view in views]),
        "object_masks": np.stack([view.object_mask for view in views]),
    }
    with atomic_file(path) as aside:
        save_file(arrays, aside, metadata={"names": to_json(names)})


def shard_path(folder: Path, first_seed: int, scenes: int, size: int, pixels: int) -> Path:
    """Return the path of the shard of these seeds; its name has everything that its content depends on."""
    return folder / f"procedural-{size}px-{pixels}px-{first_seed:09d}-{scenes}.safetensors"


class Renderer:
    """Renders shards in other processes, in the background; shards already on disk are not rendered again.

    Args:
        folder: folder of the shards.
        first_seed: seed of the first scene.
        scenes: number of scenes to render.
        size, pixels: sides of a scene and of its views.
        processes: number of processes; they have low priority.
    """

    def __init__(
        self, folder: Path, first_seed: int, scenes: int, size: int, pixels: int, processes: int, shard: int
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.scenes = scenes
        self._found = 0
        self._jobs: dict[Future[None], int] = {}
        # Forking a process that computes with threads is not safe.
        self._pool = ProcessPoolExecutor(processes, get_context("spawn"), initializer=os.nice, initargs=(5,))
        for begin in range(0, scenes, shard):
            count = min(shard, scenes - begin)
            path = shard_path(folder, first_seed + begin, count, size, pixels)
            if path.exists():
                self._found += count
            else:
                job = self._pool.submit(render_shard, path, first_seed + begin, count, size, pixels)
                self._jobs[job] = count

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    @property
    def done(self) -> int:
        """Return the number of scenes on disk.

        Raises:
            Exception: the error of a failed rendering process.
        """
        return self._found + sum(count for job, count in self._jobs.items() if job.done() and job.result() is None)

    def until(self, scenes: int) -> Iterator[int]:
        """Wait until `scenes` scenes are on disk; yields their number from time to time."""
        while (done := self.done) < min(scenes, self.scenes):
            yield done
            wait([job for job in self._jobs if not job.done()], timeout=5, return_when=FIRST_COMPLETED)
        yield done
