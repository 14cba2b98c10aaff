"""Brush masks are read by a decoder written from the `rle-pack` format, and by Label Studio's own if installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET
from zipfile import ZipFile

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from model.export.labelstudio import LOCAL_FILES, brush_rle
from model.types import MaskArray
from tests.model.export.pixels import pixels


def unpack(rle: list[int]) -> NDArray[np.uint8]:
    """The values of an `rle-pack` stream."""
    bits = iter("".join(f"{byte:08b}" for byte in rle))

    def read(size: int) -> int:
        return int("".join(next(bits) for _ in range(size)), 2)

    total, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < total:
        repeated = read(1)
        length = read(sizes[read(2)]) + 1
        values += [read(word)] * length if repeated else [read(word) for _ in range(length)]
    assert len(values) == total
    assert len(list(bits)) < 8
    return np.array(values, np.uint8)


@given(hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=14)))
def test_any_mask_comes_back_from_its_brush(mask: MaskArray) -> None:
    channels = unpack(brush_rle(mask)).reshape(*mask.shape, 4)
    assert np.array_equal(channels, np.repeat(mask[..., None] * np.uint8(255), 4, axis=2))


@pytest.mark.parametrize("pixels", [1, 2, 3, 4, 5, 63, 64, 65, 16383, 16384, 16385, 40000])
def test_runs_of_every_length_class_come_back(pixels: int) -> None:
    mask = np.array([[False] + [True] * pixels + [False]])
    assert np.array_equal(unpack(brush_rle(mask))[3::4] == 255, mask[0])


def test_the_tool_s_own_decoder_reads_the_brush(write: Any) -> None:
    brush = pytest.importorskip(
        "label_studio_sdk.converter.brush",
        reason="label-studio-sdk pins other versions of OpenCV",
        exc_type=ImportError,
    )
    with ZipFile(write("labelstudio").path) as file:
        tasks = json.loads(file.read("labelstudio/tasks.json"))
        for number, task in enumerate(tasks):
            (region,) = task["annotations"][0]["result"]
            result = region["value"] | {key: region[key] for key in ("type", "original_width", "original_height")}
            ((name, layer),) = brush.decode_from_annotation("tag", [result]).items()
            assert name == "tag-scratch-0"
            with file.open(f"masks/{number:06d}.png") as mask:
                assert np.array_equal(layer, pixels(mask))


def test_tasks_name_existing_files_and_the_configuration_fits_them(write: Any, tmp_path: Path) -> None:
    with ZipFile(write("labelstudio", num_normals=1, defect_name='"<scratch>" & dent').path) as file:
        file.extractall(tmp_path / "out")
    config = ET.fromstring((tmp_path / "out/labelstudio/config.xml").read_text())  # noqa: S314 - written by this test
    tasks = json.loads((tmp_path / "out/labelstudio/tasks.json").read_text())
    assert len(tasks) == 4
    for task in tasks:
        path = tmp_path / "out" / task["data"]["image"].removeprefix(LOCAL_FILES)
        regions = task["annotations"][0]["result"]
        assert len(regions) == (0 if "normals" in path.parts else 1)
        for region in regions:
            assert pixels(path).shape == (region["original_height"], region["original_width"], 3)
            assert config.find("Image").attrib["name"] == region["to_name"]  # type: ignore[union-attr]
            assert config.find("BrushLabels").attrib["name"] == region["from_name"]  # type: ignore[union-attr]
            assert [tag.attrib["value"] for tag in config.iter("Label")] == region["value"]["brushlabels"]
