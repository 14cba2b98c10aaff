"""What a job says about places, as the library takes it."""

from __future__ import annotations

import numpy as np

from model.data.placement import NormalImage
from service.core.asked_places import asked_places
from service.core.places import fitting
from tests.support.tiny_data import drawn_normal

NORMALS = [NormalImage("0.png", drawn_normal(0).image), drawn_normal(1), drawn_normal(2)]
SQUARE = [[0.1, 0.1], [0.4, 0.1], [0.4, 0.4]]


def test_a_drawn_mask_for_any_good_part_is_bound_to_none() -> None:
    drawn = {"sha256:1": np.ones(NORMALS[0].image.shape[:2], np.bool_)}
    (mask,) = asked_places({"placements": [{"mask": "sha256:1"}]}, drawn, NORMALS).masks
    assert fitting(mask, NORMALS) == NORMALS


def test_outlines_for_any_good_part_take_turns_on_those_that_are_allowed() -> None:
    asked = {"placements": [{"polygon": SQUARE}] * 3, "allowed": [{"polygon": SQUARE, "normal": "good2"}]}
    places = asked_places(asked, {}, NORMALS)
    places.check(NORMALS, ["crack"])
    assert [mask.normal for mask in places.masks] == ["good2"] * 3
    free = asked_places({"placements": asked["placements"]}, {}, NORMALS)
    assert [mask.normal for mask in free.masks] == ["0.png", "good1", "good2"]
