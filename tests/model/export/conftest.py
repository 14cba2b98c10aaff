"""Small generated pairs: noise for pictures, and masks with several components, holes and thin lines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from model.export.dataset import DatasetSummary, Provenance, write_dataset
from model.types import GREY, Candidate, ImageArray, MaskArray, Pair

HEIGHT, WIDTH = 24, 36


def noise(seed: int, height: int = HEIGHT, width: int = WIDTH) -> ImageArray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def ring_dot_and_scratch(shift: int) -> MaskArray:
    """A ring (a hole), a single pixel, and a diagonal scratch of single pixels that touches the border."""
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[4:12, 5 + shift : 14 + shift] = True
    mask[6:9, 8 + shift : 11 + shift] = False
    mask[20, 2] = True
    for step in range(6):
        mask[HEIGHT - 1 - step, WIDTH - 1 - step] = True
    return mask


def candidate(number: int) -> Candidate:
    return Candidate(
        index=2 * number,
        seed=1000 + number,
        image=noise(number),
        mask=ring_dot_and_scratch(number % 8),
        part=np.full((HEIGHT, WIDTH, 3), GREY, np.uint8),
        normal="part_07" if number else None,
        window=(0, 0, WIDTH, HEIGHT),
        scores={"contrast": 0.25, "alignment": float("nan")},
    )


WriteDataset = Callable[..., DatasetSummary]


@pytest.fixture
def write(tmp_path: Path) -> WriteDataset:
    """Writes a dataset of `num_pairs` pairs and `num_normals` healthy images."""

    def write(
        *formats: str,
        num_pairs: int = 3,
        num_normals: int = 0,
        path: Path = tmp_path / "dataset.zip",
        object_name: str = "metal nut",
        defect_name: str = "scratch",
    ) -> DatasetSummary:
        provenance = Provenance(
            object_name=object_name,
            defect_name=defect_name,
            request={"num_pairs": num_pairs, "seed": 7},
            adapter_card={"name": "nut scratches", "rank": 8},
            base_hash="abc123",
            counts={"accepted": num_pairs, "attempts": num_pairs + 2, "rejected": {"empty_mask": 2}},
        )
        return write_dataset(
            path,
            (candidate(number) for number in range(num_pairs)),
            provenance,
            formats=formats,
            reals=[Pair("nut_01", noise(90), ring_dot_and_scratch(0))],
            normals=((f"part_{number:02d}", noise(50 + number)) for number in range(num_normals)),
        )

    return write
