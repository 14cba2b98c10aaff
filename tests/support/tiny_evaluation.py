"""Photographs with a split by part, and an evaluation of them that takes seconds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from model.evaluation.classification import ClassifierSettings
from model.evaluation.profiles import Profile
from model.types import ImageArray, Pair
from tests.support.tiny_data import drawn_pair, surface

SPLITS = {"train": ["p0", "p1"], "test": ["p2", "p3", "p4"]}
NORMALS = {"train": ["n0", "n1", "n2"], "test": ["n3", "n4"]}
FIRST = {"blot": 0, "stain": 50, "normal": 100}
"""Seeds of the first pictures."""

TINY = Profile(
    "tiny",
    pairs=3,
    seeds=(0, 1),
    rows=("real", "copy-paste", "real+copy-paste"),
    resolution=64,
    patch=32,
    stride=1,
    widths=(8, 16),
    detectors=2,
    steps=8,
    batch=4,
    classifier=ClassifierSettings(resolution=32, steps=2),
)


def drawn_stain(seed: int) -> Pair:
    """A bright oval on a surface."""
    pair = drawn_pair(seed)
    image = surface(seed)
    image[pair.mask] = 255 - (255 - image[pair.mask]) // 3
    return Pair(f"stain{seed}", image, pair.mask)


DRAWN = {"blot": drawn_pair, "stain": drawn_stain}


def write_photographs(folder: Path, types: tuple[str, ...] = ("blot",)) -> Path:
    """Write a folder in our layout: two pairs of each type to learn from and three held out, three and two good parts.

    Pictures are 48 pixels high and 40 wide.
    """
    for kind in types:
        for number, name in enumerate([*SPLITS["train"], *SPLITS["test"]]):
            pair = DRAWN[kind](FIRST[kind] + number)
            save(folder / kind / "image" / f"{name}.png", pair.image)
            save(folder / kind / "mask" / f"{name}.png", pair.mask.astype(np.uint8) * 255)
    for number, name in enumerate([*NORMALS["train"], *NORMALS["test"]]):
        save(folder / "normal" / "image" / f"{name}.png", surface(FIRST["normal"] + number))
    splits = {"defects": dict.fromkeys(types, SPLITS), "normal": NORMALS}
    (folder / "splits.json").write_text(json.dumps(splits), encoding="utf-8")
    return folder


def save(path: Path, pixels: ImageArray) -> None:
    """Write a picture; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
