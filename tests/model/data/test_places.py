"""Places that a user gives: outlines, masks of photographs' sizes, and their identity."""

from __future__ import annotations

import numpy as np
import pytest

from model.data.places import GivenMask, Places, fitting, outlined, refuse_places
from service.core.errors import UsageError
from tests.support.tiny_data import drawn_normal

NORMALS = [drawn_normal(0), drawn_normal(1)]
SQUARE = [(0.0, 0.0), (0.5, 0.0), (0.5, 0.5), (0.0, 0.5)]


def test_outlines_are_filled_on_the_named_photograph_or_on_one_in_turn() -> None:
    places = outlined([(SQUARE, "good1.png"), (SQUARE, None), (SQUARE, None)], NORMALS)
    assert [each.name for each in places.masks] == ["good1", "good1", "good0"]
    mask = places.masks[0].mask
    assert mask.shape == NORMALS[1].image.shape[:2]
    assert mask[:27, :21].all()
    assert not mask[30:].any()
    with pytest.raises(UsageError, match=r"there is no normal bad\.png; there are good0, good1"):
        outlined([(SQUARE, "bad.png")], NORMALS)
    assert not outlined([], [])


def test_a_mask_fits_the_photograph_of_its_name_or_all_of_its_size() -> None:
    mask = np.ones(NORMALS[0].image.shape[:2], np.bool_)
    assert fitting(GivenMask("good1.bmp", mask), NORMALS) == [NORMALS[1]]
    assert fitting(GivenMask("other", mask), NORMALS) == NORMALS
    assert fitting(GivenMask("good1", mask[1:]), NORMALS) == []


def test_other_pixels_are_another_identity() -> None:
    mask = np.zeros((4, 4), np.bool_)
    places = Places([GivenMask("a", mask)])
    assert places
    assert not Places()
    assert places.identity() != Places([GivenMask("a", ~mask)]).identity()
    with pytest.raises(UsageError, match="perlin chooses places by itself"):
        refuse_places(places, "perlin")
    refuse_places(Places(), "perlin")
