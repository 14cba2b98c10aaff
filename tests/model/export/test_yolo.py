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
from numpy.typing import NDArray

from model.export.outlines import components
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


def is_within_half_a_pixel(found: MaskArray, mask: MaskArray) -> bool:
    """Whether a mask came back, but for the pixels that the tips of thin components touch: at most four of each."""
    beside = cv2.dilate(mask.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))) == 1
    thin = [part for part in components(mask) if min(np.ptp(places) for places in np.nonzero(part)) < 4]
    return not (mask & ~found).any() and not (found & ~beside).any() and (found & ~mask).sum() <= 4 * len(thin)


@given(hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=14)))
def test_any_mask_comes_back_from_its_labels(mask: MaskArray) -> None:
    assert is_within_half_a_pixel(read_labels(label_lines(mask), *mask.shape, 1), mask)


@given(hnp.arrays(np.bool_, (9, 9)))
def test_the_mask_of_what_is_not_thin_is_exact(holes: MaskArray) -> None:
    mask = np.pad(np.kron(holes, np.ones((6, 6), np.bool_)), 3)
    assert np.array_equal(read_labels(label_lines(mask), *mask.shape, 1), mask)


@pytest.mark.parametrize("side", [29, 100, 512, 999, 4000])
def test_coordinates_survive_their_rounding_at_any_size(side: int) -> None:
    mask = np.zeros((14, side), np.bool_)
    mask[4:9, 2 : 2 + (side - 4) // 13 * 13] = np.arange((side - 4) // 13 * 13) % 13 < 6
    assert np.array_equal(read_labels(label_lines(mask), *mask.shape, 1), mask)


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
                assert is_within_half_a_pixel(read_labels(labels, *expected.shape, len(data["names"])), expected)
            else:
                assert labels == ""


def kept_in_training(boxes: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Ultralytics' rule for the widths and heights, `(N, 2)` pixels, of boxes that were scaled as a whole."""
    longer = boxes.max(axis=1) / boxes.min(axis=1)
    return (boxes > 2).all(axis=1) & (longer < 100)


@pytest.mark.parametrize(("width", "at_own_size"), [(1, 0.45), (2, 0.8), (3, 0.97), (4, 1.0), (9, 1.0)])
@pytest.mark.parametrize("axis", [0, 1])
def test_lines_survive_the_scaling_of_training(width: int, at_own_size: float, axis: int) -> None:
    """The trainer scales pictures to 640 pixels, or leaves them at their own size, and then by 0.5 to 1.5."""
    mask = np.zeros((256, 256), np.bool_)
    mask[40:200, 100 : 100 + width] = True
    labels = label_lines(mask if axis == 0 else mask.T)
    points = np.array(labels.split()[1:], float).reshape(-1, 2) * 256
    box = np.ptp(points, axis=0)
    assert abs(box[axis] - width) < 1
    scales = np.linspace(0.5, 1.5, 201)[:, None]
    assert kept_in_training(box * scales * 640 / 256).all()
    assert kept_in_training(box * scales).mean() >= at_own_size
