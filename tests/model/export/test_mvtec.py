"""The rules of the MVTec AD layout, as anomalib applies them: sort images, sort masks, match them one to one."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest

from model.export.mvtec import MVTecLayout
from tests.model.export.pixels import pixels


@pytest.fixture
def unpacked(write: Any, tmp_path: Path) -> Path:
    with ZipFile(write("mvtec", num_normals=7).path) as file:
        file.extractall(tmp_path / "out")
    return tmp_path / "out/mvtec/metal_nut"


def test_every_image_of_the_defect_has_its_mask(unpacked: Path) -> None:
    images = sorted((unpacked / "test/scratch").iterdir())
    masks = sorted((unpacked / "ground_truth/scratch").iterdir())
    assert [path.name for path in images] == ["000.png", "001.png", "002.png"]
    assert [path.name for path in masks] == ["000_mask.png", "001_mask.png", "002_mask.png"]
    for image, mask in zip(images, masks, strict=True):
        assert pixels(mask).shape == pixels(image).shape[:2]
        assert set(np.unique(pixels(mask))) == {0, 255}


def test_healthy_images_are_split_once_and_only_they_are_good(unpacked: Path) -> None:
    train, test = ({path.name for path in (unpacked / split / "good").iterdir()} for split in ("train", "test"))
    assert len(train) == 5
    assert len(test) == 2
    assert not train & test
    assert {path.name for path in unpacked.iterdir()} == {"train", "test", "ground_truth"}
    assert {path.name for path in (unpacked / "test").iterdir()} == {"good", "scratch"}


@pytest.mark.parametrize("defect", ["good", "Good", "../good"])
def test_a_defect_called_good_is_not_mistaken_for_healthy(write: Any, defect: str) -> None:
    with ZipFile(write("mvtec", defect_name=defect).path) as file:
        folders = {name.split("/")[3] for name in file.namelist() if name.startswith("mvtec/metal_nut/test/")}
    assert {name.lower() for name in folders} == {"defect_good"}


@pytest.mark.parametrize("num_pairs", [1, 1000, 1001, 10001])
def test_images_and_masks_sort_alike_however_many_there_are(num_pairs: int) -> None:
    layout = MVTecLayout("nut", ["scratch"], num_pairs)
    stems = [layout.stem(number) for number in range(num_pairs)]
    assert sorted(stems, key=lambda stem: f"{stem}.png") == sorted(stems, key=lambda stem: f"{stem}_mask.png") == stems
