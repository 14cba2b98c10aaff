"""Datasets that exist already: read back as they were written, joined, and refused if they know what is held out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model.adapter_card import describe_pair, image_hash
from model.evaluation.data import EvaluationData, read_evaluation_data
from model.evaluation.given import on_budget, read_given_pairs, refuse_held_out
from model.export.dataset import Provenance, write_dataset
from model.types import Candidate, ImageArray, Pair
from service.core.errors import UsageError
from tests.support.tiny_data import drawn_normal, drawn_pair
from tests.support.tiny_evaluation import write_photographs


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> EvaluationData:
    return read_evaluation_data(write_photographs(tmp_path_factory.mktemp("photographs") / "tiles"))


def candidate(number: int) -> Candidate:
    pair = drawn_pair(200 + number)
    return Candidate(
        2 * number, 900 + number, pair.image, pair.mask, normal="good3", window=(0, 0, 40, 40), scores={"contrast": 0.5}
    )


def write(
    path: Path,
    *pairs: Candidate,
    defect: str = "blot",
    learned: tuple[Pair, ...] = (),
    normals: tuple[ImageArray, ...] = (),
) -> Path:
    card = {
        **({"types": types} if (types := sorted({pair.defect for pair in pairs if pair.defect})) else {}),
        "data": [describe_pair(pair) for pair in learned],
        "normals": [{"name": "n", "image_sha256": image_hash(image)} for image in normals],
    }
    counts = {"attempts": len(pairs) + 1, "accepted": len(pairs), "rejected": {"invisible": 1}}
    write_dataset(path, pairs, Provenance("tile", defect, {}, card, "sha", counts))
    return path


def test_pairs_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    written = [candidate(number) for number in range(3)]
    given = read_given_pairs([write(tmp_path / "a.zip", *written)])
    assert list(given) == ["blot"]
    assert given["blot"].counts == {"attempts": 4, "accepted": 3, "rejected": {"invisible": 1}}
    for one, other in zip(written, given["blot"].pairs, strict=True):
        assert np.array_equal(one.image, other.image)
        assert np.array_equal(one.mask, other.mask)
        assert one.record() == other.record()


def test_datasets_of_one_defect_are_joined_and_others_are_not(tmp_path: Path) -> None:
    one = write(tmp_path / "one.zip", candidate(0), candidate(1))
    two = write(tmp_path / "two.zip", candidate(2))
    other = write(tmp_path / "other.zip", candidate(3), defect="stain")
    given = read_given_pairs([one, two, other])
    assert {defect: len(made.pairs) for defect, made in given.items()} == {"blot": 3, "stain": 1}
    assert given["blot"].counts == {"attempts": 5, "accepted": 3, "rejected": {"invisible": 2}}
    assert [pair.seed for pair in given["blot"].pairs] == [900, 901, 902]


def test_a_dataset_of_several_types_is_divided_by_its_pairs(tmp_path: Path) -> None:
    """What was rejected counts once, however many types there are."""
    typed = [replace(candidate(number), defect=("stain", "blot")[number % 2]) for number in range(3)]
    one = write(tmp_path / "typed.zip", *typed, defect="blot, stain")
    given = read_given_pairs([one, write(tmp_path / "more.zip", candidate(9))])
    assert {defect: [pair.seed for pair in made.pairs] for defect, made in given.items()} == {
        "blot": [901, 909],
        "stain": [900, 902],
    }
    assert given["blot"].counts == {"attempts": 4, "accepted": 2, "rejected": {"invisible": 2}}
    assert given["stain"].counts == {"attempts": 2, "accepted": 2, "rejected": {}}


def test_given_pairs_are_as_many_as_other_rows_have_from_every_dataset(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{first}.zip", *map(candidate, range(first, first + 4))) for first in (0, 4)]
    given = read_given_pairs([*paths, write(tmp_path / "few.zip", candidate(9), defect="stain")])
    kept, notes = on_budget(given, 4)
    assert [pair.seed for pair in kept["blot"].pairs] == [900, 902, 904, 906]
    assert len(kept["stain"].pairs) == 1
    assert notes == [
        "blot: 4 of the 8 given pairs are used, as many as every source makes",
        "stain: 1 pair given; every other source makes 4",
    ]
    assert on_budget(given, 8)[0]["blot"].digest() == given["blot"].digest()


def test_no_dataset_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"no zip")
    with pytest.raises(UsageError, match="is not an intact dataset"):
        read_given_pairs([tmp_path / "a.zip"])


def test_a_dataset_of_the_photographs_to_learn_from_is_taken(data: EvaluationData, tmp_path: Path) -> None:
    normals = tuple(normal.image for normal in data.normals_train)
    pasted = replace(candidate(0), image=data.normals_train[0].image, normal=data.normals_train[0].name)
    path = write(tmp_path / "a.zip", pasted, learned=tuple(data.defects["blot"].train), normals=normals)
    refuse_held_out([path], data)


def test_a_dataset_that_learned_from_held_out_photographs_is_refused_whatever_they_were_called(
    data: EvaluationData, tmp_path: Path
) -> None:
    held_out = replace(data.defects["blot"].test[1], name="renamed")
    one = write(tmp_path / "one.zip", candidate(0), learned=(drawn_pair(0), held_out))
    two = write(tmp_path / "two.zip", candidate(0), normals=(data.normals_test[0].image,))
    with pytest.raises(UsageError) as refused:
        refuse_held_out([one, two], data)
    assert refused.value.problems == [
        f"{one} was made with held-out photographs: blot p3",
        f"{two} was made with held-out photographs: normal n3",
    ]


def test_a_dataset_that_lies_on_held_out_good_parts_is_refused(data: EvaluationData, tmp_path: Path) -> None:
    normal = data.normals_test[0]
    image = normal.image.copy()
    image[5:20, 5:20] = 0
    laid = replace(candidate(0), image=image, normal=normal.name, window=(0, 0, 24, 24))
    elsewhere = replace(laid, image=drawn_normal(9, *image.shape[:2]).image)
    with pytest.raises(UsageError, match=f"held-out photographs: normal {normal.name}"):
        refuse_held_out([write(tmp_path / "laid.zip", laid)], data)
    refuse_held_out([write(tmp_path / "elsewhere.zip", elsewhere)], data)
