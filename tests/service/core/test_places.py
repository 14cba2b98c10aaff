"""Places that a user gives: masks of photographs' sizes, regions, what of them cannot be met, and their identity."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from model.types import MaskArray
from service.core.errors import UsageError
from service.core.places import GivenMask, Places, Region, filled, find_normal, fitting, named_normal, refuse_places
from tests.support.tiny_data import drawn_normal

NORMALS = [drawn_normal(0), drawn_normal(1)]
SHAPE = NORMALS[0].image.shape[:2]
SQUARE = [(0.0, 0.0), (0.5, 0.0), (0.5, 0.5), (0.0, 0.5)]


def rows(first: int, last: int) -> MaskArray:
    mask = np.zeros(SHAPE, np.bool_)
    mask[first:last] = True
    return mask


def dot(pixels: int) -> MaskArray:
    mask = np.zeros(SHAPE, np.bool_)
    mask[5, 5 : 5 + pixels] = True
    return mask


def test_an_outline_is_filled_at_the_size_of_the_named_photograph() -> None:
    mask = filled(SQUARE, named_normal("good1.png", NORMALS))
    assert mask.shape == SHAPE
    assert mask[:27, :21].all()
    assert not mask[30:].any()
    with pytest.raises(UsageError, match=r"there is no normal bad\.png; there are good0, good1"):
        named_normal("bad.png", NORMALS)


def test_a_mask_fits_the_photograph_of_its_name_or_all_of_its_size() -> None:
    mask = np.ones(SHAPE, np.bool_)
    assert fitting(GivenMask("good1.bmp", mask), NORMALS) == [NORMALS[1]]
    assert fitting(GivenMask("other", mask), NORMALS) == NORMALS
    assert fitting(GivenMask("good1", mask[1:]), NORMALS) == []
    larger = replace(NORMALS[0], name="large", image=np.pad(NORMALS[0].image, ((0, 4), (0, 0), (0, 0))))
    assert fitting(GivenMask("good1", np.ones(larger.image.shape[:2], np.bool_)), [*NORMALS, larger]) == []


@pytest.mark.parametrize(
    ("name", "normal"),
    [
        ("007_mask", "007"),
        ("007_GT.png", "007"),
        ("crack/007-label 2", "007"),
        ("NORMAL-05.jpg", "normal-05"),
        ("normal-05_mask.png", "normal-05"),
        ("part.1", "part.1"),
        ("part.2_mask", "part.2"),
        ("part", None),
        ("scratch", None),
    ],
)
def test_a_photograph_is_found_by_its_own_name_and_by_that_of_its_mask(name: str, normal: str | None) -> None:
    photographs = [replace(NORMALS[0], name=each) for each in ("007", "normal-05", "part.1", "part.2")]
    found = find_normal(name, photographs)
    assert (found and found.name) == normal


def test_of_many_photographs_the_first_are_named_and_the_others_counted() -> None:
    photographs = [replace(NORMALS[0], name=f"{number:02}.png") for number in range(12)]
    with pytest.raises(UsageError, match=r"there are 00, 01, 02, 03, 04, 05, 06, 07 and 4 more"):
        named_normal("bad", photographs)


def test_defects_may_lie_in_any_allowed_region_of_the_box_that_is_not_forbidden() -> None:
    assert Places().where(NORMALS[0]) is None
    allowed = [Region(rows(10, 30)), Region(rows(40, 50), "good0.png")]
    places = Places(allowed=allowed, forbidden=[Region(rows(20, 45), "good0")])
    assert np.array_equal(places.where(NORMALS[0]), rows(10, 20) | rows(45, 50))
    assert np.array_equal(places.where(NORMALS[1]), rows(10, 30))
    half = places.where(NORMALS[1], (0.5, 0.0, 1.0, 1.0))
    assert half is not None
    assert not half[:, : SHAPE[1] // 2].any()
    assert half[10:30, SHAPE[1] // 2 :].all()


def test_a_region_for_all_is_stretched_to_each_photograph() -> None:
    lower = np.zeros((4, 4), np.bool_)
    lower[2:] = True
    assert np.array_equal(Places(allowed=[Region(lower)]).where(NORMALS[0]), rows(SHAPE[0] // 2, SHAPE[0]))


def test_photographs_without_an_allowed_region_are_not_used_once_others_have_one() -> None:
    assert Places(forbidden=[Region(rows(0, 5), "good0")]).used(NORMALS) == NORMALS
    assert Places(allowed=[Region(rows(0, 5), "good1")]).used(NORMALS) == [NORMALS[1]]
    assert Places(allowed=[Region(rows(0, 5))]).used(NORMALS) == NORMALS


@pytest.mark.parametrize(
    ("places", "reason"),
    [
        (Places(allowed=[Region(rows(0, 9), "bad")]), "allowed region bad is of no normal: there are good0, good1"),
        (
            Places(forbidden=[Region(rows(0, 9)[1:], "good0")]),
            "forbidden region of good0 is 44 × 55 pixels, the photograph 44 × 56",
        ),
        (
            Places(allowed=[Region(rows(0, 9))], forbidden=[Region(rows(0, 20), "good1")]),
            "no defect may lie on good1: the region, what is allowed and what is forbidden leave no place there",
        ),
        (
            Places([GivenMask("stroke", rows(10, 20))], forbidden=[Region(rows(15, 30))]),
            "50% of the mask stroke lies where no defect may",
        ),
        (
            Places([GivenMask("good1.png", rows(10, 20)[1:])]),
            r"good1\.png is 44 × 55 pixels, but the normal of its name is 44 × 56",
        ),
        (
            Places([GivenMask("good1.png", rows(10, 20))], [Region(rows(0, 30), "good0")]),
            r"the mask good1\.png is for the normal good1, but what is allowed is of good0 alone",
        ),
        (Places([GivenMask("stroke", rows(0, 2), "dent")]), "stroke is for dent; the adapter knows crack"),
        (Places([GivenMask("stroke", rows(0, 0))]), "stroke is empty"),
        (Places([GivenMask("dot", dot(3))]), "dot shows 3 pixels, too few for a defect: draw at least 4"),
        (Places([GivenMask("wide", rows(0, 51))]), r"wide covers 91% of its photograph, and from 90% .*full_area"),
        (Places(allowed=[Region(dot(3))]), "no defect may lie on good0, good1: .*not even 4 pixels"),
    ],
)
def test_what_cannot_be_met_is_refused_with_the_reason(places: Places, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        places.check(NORMALS, ["crack"], full=0.9)


def test_what_can_be_met_is_not() -> None:
    lower = Region(rows(28, 56))
    Places([GivenMask("stroke", rows(30, 35))], [lower], [Region(rows(30, 40), "good0")]).check(NORMALS, ["crack"])
    Places([GivenMask("dot", dot(4)), GivenMask("wide", rows(0, 51))]).check(NORMALS, ["crack"], full=0.95)
    Places(allowed=[lower]).check(NORMALS, box=(0.0, 0.5, 0.5, 1.0))
    with pytest.raises(UsageError, match="no defect may lie on good0, good1"):
        Places(allowed=[lower]).check(NORMALS, box=(0.0, 0.0, 0.5, 0.4))


def test_other_pixels_and_types_are_another_identity() -> None:
    mask = rows(0, 4)
    places = Places([GivenMask("a", mask)])
    others = [Places([GivenMask("a", ~mask)]), Places([GivenMask("a", mask, "crack")])]
    others += [Places(allowed=[Region(mask)]), Places(forbidden=[Region(mask)]), Places(forbidden=[Region(mask, "b")])]
    assert places
    assert not Places()
    assert len({repr(each.identity()) for each in (places, *others)}) == 1 + len(others)


def test_a_method_refuses_what_it_cannot_follow() -> None:
    drawn, bounded = Places([GivenMask("a", rows(0, 4))]), Places(forbidden=[Region(rows(0, 4))])
    for places, method, reason in (
        (drawn, "dualanodiff", "dualanodiff finds masks on what it made"),
        (drawn, "perlin", "perlin chooses places by itself: masks to fill are for anomalydiffusion"),
        (bounded, "perlin", "perlin chooses places by itself: regions are for anomalydiffusion and dualanodiff"),
    ):
        with pytest.raises(UsageError, match=reason):
            refuse_places(places, method, {})
    refuse_places(bounded, "dualanodiff", {"anywhere": True})
    refuse_places(drawn, "anomalydiffusion", {"sizes": [0.8, 1.25], "angles": None})
    refuse_places(None, "perlin", {})
    with pytest.raises(UsageError, match="angles changes masks that are chosen, and these are given: leave it out"):
        refuse_places(drawn, "anomalydiffusion", {"angles": [0.0, 5.0]})
