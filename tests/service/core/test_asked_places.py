"""What a job says about places, as the library takes it."""

from __future__ import annotations

from dataclasses import replace

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


def test_an_outline_for_any_good_part_fits_all_of_them_that_are_allowed() -> None:
    asked = {"placements": [{"polygon": SQUARE}, {"polygon": SQUARE, "normal": "good1"}]}
    anywhere, bound = asked_places(asked, {}, NORMALS).masks
    assert fitting(anywhere, NORMALS) == NORMALS
    assert fitting(bound, NORMALS) == [NORMALS[1]]
    places = asked_places({**asked, "allowed": [{"polygon": SQUARE, "normal": "good2"}]}, {}, NORMALS)
    assert places.used(fitting(places.masks[0], NORMALS)) == [NORMALS[2]]


def test_an_outline_fits_good_parts_of_all_sizes() -> None:
    wide = replace(NORMALS[0], name="wide", image=np.pad(NORMALS[0].image, ((0, 0), (0, 9), (0, 0))))
    (mask,) = asked_places({"placements": [{"polygon": SQUARE}]}, {}, [*NORMALS, wide]).masks
    assert fitting(mask, [*NORMALS, wide]) == [*NORMALS, wide]
    assert mask.on(wide).shape == wide.shape
    assert abs(mask.on(wide).mean() - mask.on(NORMALS[0]).mean()) < 0.01
