"""Procedural samples on disk: uncompressed npz shards, each rendered from consecutive seeds."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.pretrain.procedural.scene import render


@dataclass(frozen=True)
class Shard:
    """`N` samples side by side; the fields of `Sample`.

    Attributes:
        image: `(N, H, W, 3)` uint8.
        normal: `(N, H, W, 3)` uint8.
        mask: `(N, H, W)` bool.
        object_mask: `(N, H, W)` bool.
        caption: `(N,)` unicode, as are the others.
    """

    image: NDArray[np.uint8]
    normal: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    object_mask: NDArray[np.bool_]
    caption: NDArray[np.str_]
    part_caption: NDArray[np.str_]
    object_name: NDArray[np.str_]
    defect_name: NDArray[np.str_]


def render_shard(path: Path, first_seed: int, count: int, size: int) -> None:
    """Render seeds `first_seed` to `first_seed + count - 1` into `path`; a shard is there whole or not at all."""
    samples = [render(seed, size) for seed in range(first_seed, first_seed + count)]
    aside = path.with_suffix(".partial")
    with aside.open("wb") as file:
        np.savez(
            file,
            image=np.stack([sample.image for sample in samples]),
            normal=np.stack([sample.normal for sample in samples]),
            mask=np.packbits(np.stack([sample.mask for sample in samples]), axis=-1),
            object_mask=np.packbits(np.stack([sample.object_mask for sample in samples]), axis=-1),
            caption=np.array([sample.caption for sample in samples]),
            part_caption=np.array([sample.part_caption for sample in samples]),
            object_name=np.array([sample.object_name for sample in samples]),
            defect_name=np.array([sample.defect_name for sample in samples]),
        )
    aside.replace(path)


def load_shard(path: Path) -> Shard:
    """A shard as `render_shard` wrote it, masks unpacked."""
    with np.load(path, allow_pickle=False) as stored:
        width = stored["image"].shape[2]
        return Shard(
            image=stored["image"],
            normal=stored["normal"],
            mask=np.unpackbits(stored["mask"], axis=-1, count=width).astype(np.bool_),
            object_mask=np.unpackbits(stored["object_mask"], axis=-1, count=width).astype(np.bool_),
            caption=stored["caption"],
            part_caption=stored["part_caption"],
            object_name=stored["object_name"],
            defect_name=stored["defect_name"],
        )


def shard_path(folder: Path, first_seed: int, count: int, size: int) -> Path:
    """Where the shard of these seeds lies; the name holds all that its content depends on."""
    return folder / f"procedural-{size}px-{first_seed:09d}-{count}.npz"


def render_shards(
    folder: Path, first_seed: int, count: int, size: int, processes: int, shard: int = 1000
) -> Iterator[int]:
    """Render `count` samples into shards of `shard`, skipping those already there.

    Yields:
        The number of samples on disk so far, after each shard (and once at the start, for those found).
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing: list[tuple[Path, int, int]] = []
    for start in range(0, count, shard):
        length = min(shard, count - start)
        path = shard_path(folder, first_seed + start, length, size)
        if not path.exists():
            missing.append((path, first_seed + start, length))
    done = count - sum(length for _, _, length in missing)
    yield done
    with ProcessPoolExecutor(max_workers=processes) as pool:
        jobs = {pool.submit(render_shard, path, seed, length, size): length for path, seed, length in missing}
        for job in as_completed(jobs):
            job.result()
            done += jobs[job]
            yield done
