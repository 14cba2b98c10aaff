from __future__ import annotations

import hashlib
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from model.export.dataset import FORMATS, Provenance, write_dataset
from model.export.inspection import read_dataset
from model.types import Candidate
from service.core.errors import UsageError
from tests.model.export.pixels import pixels


def stored(file: ZipFile, name: str) -> NDArray[np.uint8]:
    with file.open(name) as data:
        return pixels(data)


def pair(number: int, image: Any, mask: Any) -> Candidate:
    return Candidate(index=number, seed=number, image=image, mask=mask, part=image)


def provenance(num_pairs: int) -> Provenance:
    return Provenance("nut", "dent", {}, None, None, {"accepted": num_pairs})


@settings(max_examples=25)
@given(
    st.lists(
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=12).flatmap(
            lambda shape: st.tuples(hnp.arrays(np.uint8, (*shape, 3)), hnp.arrays(np.bool_, shape))
        ),
        min_size=1,
        max_size=3,
    )
)
def test_pixels_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, pictures: list[tuple[Any, Any]]
) -> None:
    path = tmp_path_factory.mktemp("pictures") / "dataset.zip"
    write_dataset(path, (pair(n, *both) for n, both in enumerate(pictures)), provenance(len(pictures)), formats=FORMATS)
    with ZipFile(path) as file:
        for number, (image, mask) in enumerate(pictures):
            assert np.array_equal(stored(file, f"masks/{number:06d}.png"), mask * np.uint8(255))
            assert np.array_equal(stored(file, f"images/{number:06d}.png"), image)


def test_the_same_pairs_and_request_give_the_same_bytes(write: Any, tmp_path: Path) -> None:
    first, second = (write(*FORMATS, num_normals=3, path=tmp_path / name).path.read_bytes() for name in ("a", "b"))
    assert first == second


def test_nothing_in_the_zip_depends_on_when_or_where_it_was_written(write: Any) -> None:
    with ZipFile(write(*FORMATS, num_normals=2).path) as file:
        names = file.namelist()
        assert len(names) == len(set(names))
        for entry in file.infolist():
            assert entry.date_time == (1980, 1, 1, 0, 0, 0)
            assert (entry.compress_type, entry.create_system, entry.external_attr >> 16) == (ZIP_STORED, 3, 0o100644)


def test_the_manifest_describes_every_pair(write: Any) -> None:
    with ZipFile(write(num_pairs=3).path) as file:
        records = [json.loads(line) for line in file.read("manifest.jsonl").splitlines()]
        for number, record in enumerate(records):
            mask = stored(file, record["mask"]) == 255
            rows, columns = np.nonzero(mask)
            assert record == {
                "index": number,
                "image": f"images/{number:06d}.png",
                "mask": f"masks/{number:06d}.png",
                "image_sha256": hashlib.sha256(file.read(record["image"])).hexdigest(),
                "mask_sha256": hashlib.sha256(file.read(record["mask"])).hexdigest(),
                "width": 36,
                "height": 24,
                "candidate": 2 * number,
                "seed": 1000 + number,
                "normal": "part_07" if number else None,
                "window": [0, 0, 36, 24],
                "mask_area": mask.sum(),
                "mask_fraction": pytest.approx(mask.mean(), abs=1e-6),
                "bbox": [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1],
                "scores": {"contrast": 0.25, "alignment": None},
            }


def test_the_description_says_where_it_comes_from(write: Any) -> None:
    with ZipFile(write("yolo", "coco", num_normals=1).path) as file:
        description = json.loads(file.read("dataset.json"))
        readme = file.read("README.md").decode()
    assert description["request"] == {"num_pairs": 3, "seed": 7}
    assert description["adapter"] == {"name": "nut scratches", "rank": 8}
    assert description["base_hash"] == "abc123"
    assert description["counts"] == {"accepted": 3, "attempts": 5, "rejected": {"empty_mask": 2}}
    assert description["formats"] == ["coco", "yolo"]
    assert description["software"]["name"] == "pairforge"
    assert [normal["name"] for normal in description["normals"]] == ["part_00"]
    assert "metal nut: scratch" in readme
    assert "is generated" in readme
    assert "COCO" in readme
    assert "Label Studio" not in readme


def test_the_preview_shows_at_most_24_generated_pairs_after_the_real_ones(write: Any, tmp_path: Path) -> None:
    sizes = []
    for num_pairs in (1, 24, 30):
        with ZipFile(write(num_pairs=num_pairs, path=tmp_path / f"{num_pairs}.zip").path) as file:
            sizes.append(stored(file, "preview.png").shape[0])
    assert sizes[0] < sizes[1] == sizes[2]


def test_reading_gives_the_summary_of_writing(write: Any) -> None:
    written = write(*FORMATS, num_normals=2)
    assert read_dataset(written.path) == written
    assert (written.num_pairs, written.num_normals, written.formats) == (3, 2, FORMATS)


def tampered(source: Path, target: Path, changes: dict[str, bytes | None]) -> Path:
    """A copy with files replaced, or removed where the change is None."""
    with ZipFile(source) as old, ZipFile(target, "w") as new:
        for name in old.namelist():
            data = changes.get(name, old.read(name))
            if data is not None:
                new.writestr(name, data)
    return target


@pytest.mark.parametrize(
    ("changes", "problems"),
    [
        (
            {"images/000001.png": b"other", "masks/000002.png": None, "normals/images/000000.png": b"other"},
            ["masks/000002.png is missing", "images/000001.png was changed", "normals/images/000000.png was changed"],
        ),
        ({"manifest.jsonl": b""}, ["manifest.jsonl does not belong"]),
        ({"manifest.jsonl": None, "dataset.json": None}, ["dataset.json is missing", "manifest.jsonl is missing"]),
        ({"dataset.json": b'{"format_version": 99}'}, ["its format version is 99"]),
        ({"dataset.json": b"{}"}, ["its format version is None"]),
        ({"dataset.json": b"{"}, ["dataset.json is not valid JSON"]),
    ],
)
def test_everything_wrong_is_named(write: Any, tmp_path: Path, changes: Any, problems: list[str]) -> None:
    path = tampered(write(num_normals=1).path, tmp_path / "tampered.zip", changes)
    with pytest.raises(UsageError) as caught:
        read_dataset(path)
    assert len(caught.value.problems) == len(problems)
    for found, expected in zip(caught.value.problems, problems, strict=True):
        assert found.startswith(expected)


def test_a_flipped_bit_in_any_kind_of_file_is_found(write: Any) -> None:
    path = write("yolo").path
    with ZipFile(path) as file:
        offset = file.getinfo("labels/000001.txt").header_offset + 30 + len("labels/000001.txt") + 5
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)
    with pytest.raises(UsageError, match=r"labels/000001\.txt is damaged"):
        read_dataset(path)


@pytest.mark.parametrize("content", [None, b"", b"PK not a zip"])
def test_what_is_no_zip_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "dataset.zip"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match="not an intact dataset"):
        read_dataset(path)


def test_a_failure_on_the_way_leaves_what_was_there(write: Any, tmp_path: Path) -> None:
    path = write().path
    before = path.read_bytes()

    def breaks() -> Iterator[Candidate]:
        yield pair(0, np.zeros((4, 4, 3), np.uint8), np.ones((4, 4), np.bool_))
        raise OSError("the store went away")

    with pytest.raises(OSError, match="went away"):
        write_dataset(path, breaks(), provenance(2))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("stated", "given_pairs"), [(2, 1), (0, 0)])
def test_counts_that_disagree_with_the_pairs_are_refused(tmp_path: Path, stated: int, given_pairs: int) -> None:
    pairs = [pair(0, np.zeros((4, 4, 3), np.uint8), np.ones((4, 4), np.bool_))] * given_pairs
    with pytest.raises(ValueError, match=f"counts say {stated}"):
        write_dataset(tmp_path / "dataset.zip", pairs, provenance(stated))
    assert not list(tmp_path.iterdir())


def test_every_unknown_format_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'voc' does not exist") as caught:
        write_dataset(tmp_path / "dataset.zip", [], provenance(0), formats=["coco", "voc", "kitti"])
    assert len(caught.value.problems) == 2


def test_memory_does_not_grow_with_the_number_of_pairs(tmp_path: Path) -> None:
    def peak(num_pairs: int) -> int:
        image, mask = np.zeros((192, 192, 3), np.uint8), np.zeros((192, 192), np.bool_)
        mask[100:120, 100:140] = True
        pairs = (pair(number, image.copy(), mask.copy()) for number in range(num_pairs))
        tracemalloc.start()
        write_dataset(tmp_path / "dataset.zip", pairs, provenance(num_pairs), formats=FORMATS)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(1)
    # Both fill the preview; 16 more pairs are 2.4 MB of pixels.
    assert peak(40) < peak(24) + 1_000_000
