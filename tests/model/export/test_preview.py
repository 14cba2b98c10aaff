from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from model.export.preview import GAP, LABEL_HEIGHT, OUTLINE, PAPER, TILE, PairSheet, contact_sheet, outlined
from model.types import Candidate


def test_tiles_are_fitted_centred_and_labelled() -> None:
    wide, mask = np.full((10, 40, 3), 200, np.uint8), np.zeros((64, 64), np.bool_)
    mask[0, 0] = True
    sheet = contact_sheet([[wide, mask], [wide]], [["a", "b" * 200], ["c"]], tile=32)
    assert sheet.size == (2 * (32 + GAP) + GAP, 2 * (32 + LABEL_HEIGHT + GAP) + GAP)
    pixels = np.asarray(sheet)
    first = pixels[GAP : GAP + 32, GAP : GAP + 32]
    assert (first[12:20] == 200).all()
    assert (first[:12] == PAPER).all()
    second = pixels[GAP : GAP + 32, 2 * GAP + 32 : 2 * GAP + 64]
    assert second[0, 0].tolist() == [255] * 3
    assert (second[4:] == 0).all()
    label = pixels[GAP + 32 : GAP + 32 + LABEL_HEIGHT]
    assert (label[:, GAP : GAP + 32] != PAPER).any()
    assert (label[:, -GAP:] == PAPER).all()


def test_the_outline_leaves_the_defect_and_what_is_far_from_it_as_they_are() -> None:
    image, mask = np.full((20, 20, 3), 90, np.uint8), np.zeros((20, 20), np.bool_)
    mask[8:12, 8:12] = True
    drawn = outlined(image, mask)
    assert (drawn[mask] == 90).all()
    assert (drawn[:5] == 90).all()
    assert drawn[6, 9].tolist() == list(OUTLINE)


def test_a_tiny_defect_stays_visible_in_a_small_tile() -> None:
    mask = np.zeros((1000, 1000), np.bool_)
    mask[503, 707] = True
    sheet = contact_sheet([[mask]], [[""]], tile=50)
    assert isinstance(sheet, Image.Image)
    assert np.asarray(sheet)[GAP : GAP + 50, GAP : GAP + 50].max() == 255


@pytest.mark.parametrize("name", ["划痕 样本", "きず", "흠집", "Царапина", "\U0001f642"])
def test_names_in_any_script_are_drawn(name: str) -> None:
    """A font that lacks letters draws the same box for each of them."""
    picture = np.full((9, 9, 3), 200, np.uint8)
    drawn, boxes = (np.asarray(contact_sheet([[picture]], [[text]])) for text in (name, "\U0010ffff" * len(name)))
    assert (drawn != boxes).any()
    letters = {contact_sheet([[picture]], [[letter]]).tobytes() for letter in set(name)}
    assert len(letters) == len(set(name))


def test_generated_pairs_are_shown_best_first() -> None:
    sheet = PairSheet()
    mask = np.zeros((8, 8), np.bool_)
    mask[2:4, 2:4] = True
    for number, (level, score) in enumerate([(50, 0.2), (100, 0.9), (150, 0.5)]):
        sheet.add(number, Candidate(number, 0, np.full((8, 8, 3), level, np.uint8), mask, scores={"score": score}))
    pixels = np.asarray(sheet.render())
    step = 3 * (TILE + GAP)
    assert [int(pixels[GAP + 5, GAP + 5 + number * step, 0]) for number in range(3)] == [100, 150, 50]
