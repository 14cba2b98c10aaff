"""The labels are read as the format is specified, with OpenCV's filling, which the trainer uses."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zipfile import ZipFile

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis.extra import numpy as hnp

from model.export.yolo import label_lines
from model.types import MaskArray
from tests.model.export.pixels import pixels


def read_labels(text: str, height: int, width: int, num_classes: int) -> MaskArray:
    """`class x1 y1 x2 y2 x3 y3 …` per line, coordinates in [0, 1], at least three points."""
    mask = np.zeros((height, width), np.uint8)
    for line in text.splitlines():
        number, *values = line.split(" ")
        assert 0 <= int(number) < num_classes
        assert len(values) >= 6
        assert len(values) % 2 == 0
        points = np.array(values, np.float32).reshape(-1, 2)
        assert points.min() >= 0
        assert points.max() <= 1
        cv2.fillPoly(mask, [(points * np.float32([width, height])).astype(np.int32)], 1)
    return mask == 1


@given(hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=14)))
def test_any_mask_comes_back_from_its_labels(mask: MaskArray) -> None:
    assert np.array_equal(read_labels(label_lines(mask), *mask.shape, 1), mask)


@pytest.mark.parametrize("side", [29, 100, 512, 999, 4000])
def test_coordinates_survive_their_rounding_at_any_size(side: int) -> None:
    mask = np.zeros((3, side), np.bool_)
    mask[1, ::2] = True
    assert np.array_equal(read_labels(label_lines(mask), 3, side, 1), mask)


def test_the_folder_is_complete(write: Any, tmp_path: Path) -> None:
    with ZipFile(write("yolo", num_normals=2, defect_name="scratch: #1 \U0001f529").path) as file:
        file.extractall(tmp_path / "out")
    data = yaml.safe_load((tmp_path / "out/data.yaml").read_text())
    assert data["names"] == {0: "scratch: #1 \U0001f529"}
    assert data["train"] == data["val"] == ["images", "normals/images"]
    for folder in data["train"]:
        for image in (tmp_path / "out" / folder).iterdir():
            labels = (image.parent.parent / "labels" / image.with_suffix(".txt").name).read_text()
            if folder == "images":
                expected = pixels(tmp_path / "out/masks" / image.name) == 255
                assert len(labels.splitlines()) == 3
                assert np.array_equal(read_labels(labels, *expected.shape, len(data["names"])), expected)
            else:
                assert labels == ""


@pytest.mark.parametrize("width", [1, 2, 3, 4, 9])
def test_the_box_of_a_line_is_as_wide_as_the_line(width: int) -> None:
    """A trainer drops boxes of up to two pixels after scaling; one pixel short, it would drop twice as many lines."""
    mask = np.zeros((256, 256), np.bool_)
    mask[40:200, 100 : 100 + width] = True
    x = np.array(label_lines(mask).split()[1::2], float) * 256
    assert width - 0.1 < x.max() - x.min() <= width
    assert abs(x.min() - 100) < 0.5
    assert abs(x.max() - (100 + width)) < 0.5
