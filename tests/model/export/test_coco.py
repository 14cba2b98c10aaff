from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
from pycocotools.coco import COCO

from tests.model.export.pixels import pixels

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools

FILES = ("instances_rle.json", "instances_polygons.json")


@pytest.fixture
def unpacked(write: Any, tmp_path: Path) -> Path:
    with ZipFile(write("coco", num_normals=2).path) as file:
        file.extractall(tmp_path / "out")
    return tmp_path / "out"


def read(path: Path) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(path)


@pytest.mark.parametrize("name", FILES)
def test_pycocotools_decodes_every_image_to_its_mask(unpacked: Path, name: str) -> None:
    coco = read(unpacked / "coco" / name)
    pairs = [json.loads(line) for line in (unpacked / "manifest.jsonl").read_text().splitlines()]
    images = {image["file_name"]: image["id"] for image in coco.dataset["images"]}
    for pair in pairs:
        annotations = coco.loadAnns(coco.getAnnIds(images[pair["image"]]))
        decoded = [coco.annToMask(annotation) for annotation in annotations]
        expected = pixels(unpacked / pair["mask"]) == 255
        assert len(decoded) == 3
        assert np.array_equal(np.any(decoded, axis=0), expected)
        for annotation, mask in zip(annotations, decoded, strict=True):
            rows, columns = np.nonzero(mask)
            assert annotation["area"] == mask.sum()
            box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
            assert annotation["bbox"] == box


@pytest.mark.parametrize("name", FILES)
def test_images_exist_with_the_stated_size_and_healthy_ones_have_no_annotation(unpacked: Path, name: str) -> None:
    coco = read(unpacked / "coco" / name)
    assert len(coco.dataset["images"]) == 5
    for image in coco.dataset["images"]:
        assert pixels(unpacked / image["file_name"]).shape == (image["height"], image["width"], 3)
        assert bool(coco.getAnnIds(image["id"])) == image["file_name"].startswith("images/")
    assert coco.loadCats(coco.getCatIds()) == [{"id": 1, "name": "scratch", "supercategory": "metal nut"}]
