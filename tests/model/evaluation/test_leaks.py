"""Photographs of one part are found on both sides of a split, those of different parts are not."""

from __future__ import annotations

import numpy as np
from PIL import Image

from model.evaluation.leaks import note_same_parts, same_parts
from model.types import ImageArray
from tests.support.tiny_data import drawn_pair, surface

Named = list[tuple[str, ImageArray]]


def part(seed: int) -> ImageArray:
    """A surface whose grain is several pixels wide, so that it outlives resampling."""
    return np.asarray(Image.fromarray(surface(seed, 32, 26)).resize((130, 160)))


def parts(*seeds: int) -> Named:
    return [(f"part{seed}", part(seed)) for seed in seeds]


def exposed(image: ImageArray) -> ImageArray:
    """As photographed again: darker, moved by two pixels, noisier, and a little larger."""
    rng = np.random.default_rng(0)
    moved = np.roll(image, (2, -2), (0, 1)) * 0.6 + rng.normal(0, 2, image.shape)
    return np.asarray(Image.fromarray(moved.clip(0, 255).astype(np.uint8)).resize((131, 162)))


def test_a_part_that_is_photographed_again_is_found() -> None:
    test = [*parts(10, 11), ("again", exposed(part(2)))]
    (found,) = same_parts(parts(1, 2, 3), test)
    assert found[:2] == ("part2", "again")


def test_a_defect_does_not_hide_its_part() -> None:
    pair = drawn_pair(4)
    (found,) = same_parts([("good", surface(4)), *parts(1)], [("bad", pair.image)])
    assert found[:2] == ("good", "bad")


def test_different_parts_are_no_leak() -> None:
    assert note_same_parts(parts(*range(10)), parts(*range(20, 30))) == []
    assert note_same_parts([], parts(1)) == note_same_parts(parts(1), []) == []


def test_plain_photographs_look_like_nothing() -> None:
    plain = [("plain", np.full((30, 30, 3), 90, np.uint8))]
    assert same_parts(plain, plain) == []


def test_the_note_names_a_few_and_counts_the_rest() -> None:
    (note,) = note_same_parts(parts(*range(7)), parts(*range(7)))
    assert "part0 and part0 (1.00)" in note
    assert "and 2 more pairs" in note
