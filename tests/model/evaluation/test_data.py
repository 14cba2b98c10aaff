"""Folders of real data: three layouts are read, and what trains never tests."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from model.evaluation.data import EvaluationData, leave_out, read_evaluation_data
from service.core.errors import UsageError
from tests.support.tiny_data import drawn_pair, surface

SPLITS = {
    "defects": {
        "blot": {
            "train": ["p0", "p1"],
            "train_group_rest": ["p5"],
            "test": ["p2", "p3"],
            "groups": [["p0", "p5"], ["p1"], ["p2", "p3"]],
        },
        "stain": {"train": ["p0", "p2"], "test": ["p1"], "tiles": None},
    },
    "normal": {"train": ["n0", "n1"], "test": ["n2"]},
}
SEEDS = {"blot": 0, "stain": 50, "normal": 100}


def save(path: Path, pixels: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def save_pair(image: Path, mask: Path, seed: int, value: int = 255) -> None:
    pair = drawn_pair(seed)
    save(image, pair.image)
    save(mask, pair.mask.astype(np.uint8) * value)


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    folder = tmp_path / "tiles"
    for kind, count in (("blot", 6), ("stain", 3)):
        for number in range(count):
            name = f"p{number}.png"
            save_pair(folder / kind / "image" / name, folder / kind / "mask" / name, SEEDS[kind] + number)
    for number in range(3):
        save(folder / "normal" / "image" / f"n{number}.png", surface(SEEDS["normal"] + number))
    write(folder, SPLITS)
    return folder


@pytest.fixture
def mvtec(tmp_path: Path) -> Path:
    folder = tmp_path / "mvtec" / "bottle"
    for number in range(8):
        name = f"{number:03}"
        save_pair(
            folder / "test" / "broken" / f"{name}.png", folder / "ground_truth" / "broken" / f"{name}_mask.png", number
        )
    for number in range(2):
        save(folder / "train" / "good" / f"{number:03}.png", surface(200 + number))
        save(folder / "test" / "good" / f"{number:03}.png", surface(300 + number))
    return folder


@pytest.fixture
def visa(tmp_path: Path) -> Path:
    folder = tmp_path / "visa" / "candle"
    data = folder / "Data"
    for number in range(7):
        name = f"{number:03}"
        save_pair(
            data / "Images" / "Anomaly" / f"{name}.JPG",
            data / "Masks" / "Anomaly" / f"{name}.png",
            number,
            value=1 + number % 3,
        )
    for number in range(5):
        save(data / "Images" / "Normal" / f"{number:04}.JPG", surface(200 + number))
    return folder


def write(folder: Path, splits: Any) -> None:
    (folder / "splits.json").write_text(json.dumps(splits))


def names(data: EvaluationData) -> dict[str, tuple[list[str], list[str]]]:
    defects = {
        kind: ([pair.name for pair in split.train], [pair.name for pair in split.test])
        for kind, split in data.defects.items()
    }
    return defects | {
        "normal": ([normal.name for normal in data.normals_train], [normal.name for normal in data.normals_test])
    }


def test_our_layout_is_divided_by_its_splits(ours: Path) -> None:
    data = read_evaluation_data(ours)
    assert (data.name, data.layout) == ("tiles", "pairforge")
    assert names(data) == {
        "blot": (["p0", "p1"], ["p2", "p3"]),
        "stain": (["p0", "p2"], ["p1"]),
        "normal": (["n0", "n1"], ["n2"]),
    }
    pair = drawn_pair(2)
    assert np.array_equal(data.defects["blot"].test[0].image, pair.image)
    assert np.array_equal(data.defects["blot"].test[0].mask, pair.mask)
    assert any("left out 2 photographs in neither list" in note for note in data.notes)


def test_types_can_be_chosen(ours: Path) -> None:
    assert list(read_evaluation_data(ours, ["stain"]).defects) == ["stain"]
    with pytest.raises(UsageError, match="no defect type dent; it has blot and stain"):
        read_evaluation_data(ours, ["dent"])


def test_the_digest_changes_with_pixels_and_with_the_split_alone(ours: Path) -> None:
    first = read_evaluation_data(ours).digest
    moved = ours.rename(ours.with_name("elsewhere"))
    assert read_evaluation_data(moved).digest == first
    write(moved, SPLITS | {"normal": {"train": ["n0"], "test": ["n2"]}})
    fewer = read_evaluation_data(moved).digest
    save(moved / "normal" / "image" / "n0.png", surface(7))
    assert len({first, fewer, read_evaluation_data(moved).digest}) == 3


def changed(**lists: list[Any]) -> Any:
    return SPLITS | {"defects": {"blot": SPLITS["defects"]["blot"] | lists}}


@pytest.mark.parametrize(
    ("splits", "sentence"),
    [
        (changed(test=["p1", "p2"]), "p1 is in train and in test"),
        (changed(test=["p2", "p5"]), "blot/p0 in train and blot/p5 in test show the same part"),
        (SPLITS | {"groups": [["blot/p0", "stain/p1"]]}, "blot/p0 in train and stain/p1 in test show the same part"),
        (SPLITS | {"groups": [["normal/n0", "blot/p2"]]}, "normal/n0 in train and blot/p2 and blot/p3 in test show"),
        (SPLITS | {"groups": [["blot/p0", "normal/n2"]]}, "blot/p0 in train and normal/n2 in test show the same part"),
        (SPLITS | {"groups": [["blot/p5", "stain/p1"]]}, "blot/p0 in train and stain/p1 in test show the same part"),
        (SPLITS | {"groups": [["blot/p9", "dent/p1"]]}, "groups: blot/p9 and dent/p1 is no photograph"),
        (changed(test=["p9"]), "p9 is not in blot/image; give file names without their ending"),
        (changed(train=["p0", "p0"]), "p0 stands twice in train"),
        (changed(train=["p0"]), "train has 1 photograph; at least 2 are needed"),
        (changed(test=[]), "test has no photographs"),
        (changed(test=["p2", "p3"], tiles=None, groups="p0"), "defects.blot.groups"),
        (SPLITS | {"normal": {"train": ["n0"], "test": ["n0"]}}, "normal: n0 is in train and in test"),
        ({"defects": {}}, "must look like"),
        ([1], "must look like"),
    ],
)
def test_a_wrong_split_is_refused(ours: Path, splits: Any, sentence: str) -> None:
    write(ours, splits)
    with pytest.raises(UsageError, match=sentence):
        read_evaluation_data(ours)


def test_all_mistakes_of_a_split_are_named(ours: Path) -> None:
    write(ours, changed(train=["p0"], test=["p0", "p8"]))
    with pytest.raises(UsageError) as refused:
        read_evaluation_data(ours)
    assert len(refused.value.problems) == 3


def test_without_splits_an_example_is_given(ours: Path) -> None:
    (ours / "splits.json").unlink()
    with pytest.raises(UsageError, match=r"has no splits\.json") as refused:
        read_evaluation_data(ours)
    write(ours, json.loads(str(refused.value).splitlines()[-1]))
    assert names(read_evaluation_data(ours))["blot"] == (["p0", "p1"], ["p2", "p3"])


def test_one_picture_under_two_names_may_not_train_and_test(ours: Path) -> None:
    images = ours / "normal" / "image"
    shutil.copy(images / "n0.png", images / "n2.png")
    said = "n0 in train and normal photographs n2 in test are the same picture: keep one, .* --without test/normal/n2"
    with pytest.raises(UsageError, match=said):
        read_evaluation_data(ours)
    data = read_evaluation_data(ours, without=["test/normal/n2"])
    assert "n2" not in names(data)["normal"][1]


def test_normal_photographs_may_lack(ours: Path) -> None:
    shutil.rmtree(ours / "normal")
    write(ours, {"defects": SPLITS["defects"]})
    data = read_evaluation_data(ours)
    assert names(data)["normal"] == ([], [])
    assert [note for note in data.notes if "no normal photographs" in note] == [
        "there are no normal photographs to train on",
        "there are no normal photographs to test on",
    ]


def test_deep_photographs_are_scaled_by_the_range_of_the_training_ones(ours: Path) -> None:
    def deepen(path: Path, factor: int) -> None:
        save(path, np.asarray(Image.open(path).convert("L")).astype(np.uint16) * factor)

    for path in [*ours.glob("blot/image/*"), *ours.glob("normal/image/*")]:
        deepen(path, 16)
    dim = read_evaluation_data(ours, ["blot"])
    deepen_test = ours / "blot" / "image" / "p2.png"
    save(deepen_test, np.asarray(Image.open(deepen_test)) * np.uint16(16))
    bright = read_evaluation_data(ours, ["blot"])
    for before, after in zip(dim.defects["blot"].train, bright.defects["blot"].train, strict=True):
        assert np.array_equal(before.image, after.image)
    assert bright.defects["blot"].test[0].image.min() > dim.defects["blot"].test[0].image.min()


def test_unreadable_files_of_all_types_are_named_together(ours: Path) -> None:
    for kind in ("blot", "stain"):
        (ours / kind / "mask" / "p1.png").unlink()
    with pytest.raises(UsageError) as refused:
        read_evaluation_data(ours)
    assert [problem.split(":")[0] for problem in refused.value.problems] == ["blot", "stain"]


def test_of_mvtec_the_first_third_of_a_type_trains(mvtec: Path) -> None:
    data = read_evaluation_data(mvtec)
    assert (data.name, data.layout) == ("bottle", "MVTec AD")
    assert names(data) == {
        "broken": (["000", "001"], ["002", "003", "004", "005", "006", "007"]),
        "normal": (["000", "001"], ["000", "001"]),
    }
    assert np.array_equal(data.defects["broken"].test[0].mask, drawn_pair(2).mask)
    assert "also tests on one photograph per type that it trains on, this one does not" in data.notes[0]


def test_of_few_photographs_a_third_is_refused(mvtec: Path) -> None:
    for number in range(5, 8):
        (mvtec / "test" / "broken" / f"{number:03}.png").unlink()
    with pytest.raises(UsageError, match="broken: train has 1 photograph; at least 2 are needed"):
        read_evaluation_data(mvtec)


def test_a_folder_of_categories_is_refused_with_their_names(mvtec: Path) -> None:
    shutil.copytree(mvtec, mvtec.with_name("cable"))
    with pytest.raises(UsageError, match=r"bottle, cable.*one is evaluated at a time: give .*mvtec/bottle"):
        read_evaluation_data(mvtec.parent)


def test_every_class_of_visa_is_defect(visa: Path) -> None:
    data = read_evaluation_data(visa)
    assert (data.name, data.layout) == ("candle", "VisA")
    assert names(data) == {
        "anomaly": (["000", "001"], ["002", "003", "004", "005", "006"]),
        "normal": (["0000", "0001", "0002", "0003"], ["0004"]),
    }
    for number, pair in enumerate(data.defects["anomaly"].train + data.defects["anomaly"].test):
        assert np.array_equal(pair.mask, drawn_pair(number).mask)


def test_no_held_out_mask_decides_how_the_others_are_read(visa: Path) -> None:
    """Held-out masks have a class that the training masks lack; nothing of these changes by that."""
    before = read_evaluation_data(visa)
    mask = visa / "Data" / "Masks" / "Anomaly" / "006.png"
    save(mask, drawn_pair(6).mask.astype(np.uint8) * 9)
    after = read_evaluation_data(visa)
    for one, other in zip(before.defects["anomaly"].train, after.defects["anomaly"].train, strict=True):
        assert np.array_equal(one.mask, other.mask)
    assert np.array_equal(after.defects["anomaly"].test[-1].mask, drawn_pair(6).mask)
    assert any("000.png and 001.png: 1,2 used as defect" in note for note in after.notes)


def test_training_masks_are_read_before_held_out_ones(ours: Path) -> None:
    """255 beside small class numbers is a border; whether it occurs in held-out masks says nothing on the others."""
    held_out = ours / "blot" / "mask" / "p2.png"
    write(ours, changed(test=["p2"]))
    before = read_evaluation_data(ours, ["blot"]).defects["blot"].train[0].mask
    pixels = (np.asarray(Image.open(held_out)) > 0).astype(np.uint8)
    pixels[:3] = 255
    save(held_out, pixels)
    data = read_evaluation_data(ours, ["blot"])
    assert np.array_equal(data.defects["blot"].train[0].mask, before)
    assert not data.defects["blot"].test[0].mask[:3].any()


def test_a_mask_without_an_image_is_named(ours: Path) -> None:
    shutil.copy(ours / "blot" / "mask" / "p0.png", ours / "blot" / "mask" / "q0.png")
    with pytest.raises(UsageError, match=r"blot: 1 mask without an image: q0\.png"):
        read_evaluation_data(ours)


def test_held_out_photographs_of_one_part_are_one_part(ours: Path) -> None:
    data = read_evaluation_data(ours)
    parts = {kind: [[pair.name for pair in part] for part in s.held_out_parts] for kind, s in data.defects.items()}
    assert parts == {"blot": [["p2", "p3"]], "stain": [["p1"]]}
    assert [len(part) for part in leave_out(data, ["blot/p3"]).defects["blot"].held_out_parts] == [1]
    write(ours, changed(groups=[["p0", "p5"]]))
    apart = read_evaluation_data(ours)
    assert len(apart.defects["blot"].held_out_parts) == 2
    assert apart.digest != data.digest


def test_a_name_of_both_sides_is_left_out_by_its_side(mvtec: Path) -> None:
    data = read_evaluation_data(mvtec)
    with pytest.raises(UsageError) as refused:
        leave_out(data, ["normal/000", "train/broken/002"])
    assert refused.value.problems == [
        "normal/000 is 2 photographs: name train/normal/000 or test/normal/000",
        "train/broken/002 is no photograph of bottle that trains or tests",
    ]
    rest = leave_out(data, ["test/normal/000", "broken/007"])
    assert names(rest)["normal"] == (["000", "001"], ["001"])
    assert names(rest)["broken"][1] == ["002", "003", "004", "005", "006"]
    assert leave_out(data, ["test/broken/007", "test/normal/000"]).digest == rest.digest


def test_visa_divides_normal_photographs_by_its_own_table(visa: Path) -> None:
    rows = ["object,split,label,image,mask"]
    for number in range(5):
        side = "test" if number in {1, 3} else "train"
        rows.append(f"candle,{side},normal,candle/Data/Images/Normal/{number:04}.JPG,")
    rows += ["cashew,test,normal,cashew/Data/Images/Normal/0000.JPG,"]
    (visa.parent / "split_csv").mkdir()
    (visa.parent / "split_csv" / "1cls.csv").write_text("\n".join(rows))
    assert names(read_evaluation_data(visa))["normal"] == (["0000", "0002", "0004"], ["0001", "0003"])
    renamed = visa.rename(visa.parent / "candles")
    data = read_evaluation_data(renamed)
    assert names(data)["normal"] == (["0000", "0001", "0002", "0003"], ["0004"])
    assert any("because split_csv/1cls.csv does not list candles" in note for note in data.notes)


@pytest.mark.parametrize("place", ["empty", "missing"])
def test_other_folders_are_refused_with_the_layouts(tmp_path: Path, place: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"splits\.json\nMVTec AD, one category"):
        read_evaluation_data(tmp_path / place)


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("magnetic-tile", {"blowhole": (7, 75), "break": (6, 58), "crack": (3, 31), "normal": (120, 120)}),
        ("cookie", {"cracked": (5, 17), "normal": (30, 13)}),
        ("crackforest", {"crack": (8, 73), "normal": (25, 36)}),
        (
            "deeppcb",
            {
                "open": (7, 5),
                "short": (4, 10),
                "mousebite": (6, 8),
                "spur": (5, 8),
                "copper": (4, 11),
                "pinhole": (4, 10),
                "normal": (23, 25),
            },
        ),
    ],
)
def test_real_photographs_are_read(magnetic_tile: Path, name: str, counts: dict[str, tuple[int, int]]) -> None:
    folder = magnetic_tile.parent / name
    if not folder.is_dir():
        pytest.skip(f"no {name} photographs beside {magnetic_tile}")
    data = read_evaluation_data(folder)
    assert {kind: (len(train), len(test)) for kind, (train, test) in names(data).items()} == counts


def test_a_part_on_both_sides_is_noted_until_it_is_left_out(ours: Path) -> None:
    mask = ours / "blot" / "mask"
    pixels = np.asarray(Image.open(ours / "blot" / "image" / "p0.png")).copy()
    pixels[0, 0] ^= 1
    save(ours / "blot" / "image" / "p3.png", pixels)
    shutil.copy(mask / "p0.png", mask / "p3.png")
    data = read_evaluation_data(ours)
    (doubt,) = data.same_parts
    assert "blot p0 and blot p3 " in doubt
    assert doubt in data.notes
    rest = leave_out(data, ["blot/p3"])
    assert rest.same_parts == []
    assert not any("blot p3 " in note for note in rest.notes)
    assert rest.digest != data.digest


def test_too_few_photographs_are_not_left(ours: Path) -> None:
    data = read_evaluation_data(ours)
    with pytest.raises(UsageError, match="stain: 1 photograph to train on and 1 to test on would be left"):
        leave_out(data, ["stain/p0"])


def test_photographs_of_one_part_count_once_whichever_types_join_them(ours: Path) -> None:
    write(ours, changed(groups=None) | {"groups": [["blot/p2", "normal/n2"], ["normal/n2", "blot/p3"]]})
    assert [[pair.name for pair in part] for part in read_evaluation_data(ours).defects["blot"].held_out_parts] == [
        ["p2", "p3"]
    ]


def test_groups_may_name_types_that_are_not_evaluated(ours: Path) -> None:
    write(ours, SPLITS | {"groups": [["blot/p0", "stain/p1"]]})
    assert list(read_evaluation_data(ours, ["stain"]).defects) == ["stain"]
