"""Contrast: every candidate's is about that of a real defect, whatever mask it fills."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from model.anomalydiffusion.adapter import MATCHED, AnomalyDiffusionAdapter
from model.anomalydiffusion.sampling.contrast import real_contrast
from model.anomalydiffusion.sampling.sampler import lay_defect, prepare_sampling
from model.data.laying import FADE, Change
from model.data.windows import make_canvas
from model.diffusion.base import load_base
from model.quality.contrast import RING, SCALES, RealContrast, find_scale, lay_scaled
from model.quality.visibility import Rings
from model.types import Candidate, ImageArray, MaskArray
from service.core.options.anomalydiffusion import AnomalySamplingConfig
from service.core.places import GivenMask, Places
from tests.support.tiny_anomaly import NORMALS, sampled, tiny_adapter
from tests.support.tiny_data import surface

ALL = np.ones((64, 64), np.bool_)


@pytest.fixture(scope="module")
def adapter(tiny_base: Path) -> AnomalyDiffusionAdapter:
    return pushed(tiny_adapter(load_base(str(tiny_base)), ("break", "crack")))


def pushed(adapter: AnomalyDiffusionAdapter, **scales: float) -> AnomalyDiffusionAdapter:
    """Return the adapter as if training had found these scales, else 1.1."""
    return replace(adapter, card={**adapter.card, MATCHED: dict.fromkeys(adapter.model.types, 1.1) | scales})


def stroke(width: int) -> MaskArray:
    mask = np.zeros((64, 64), np.bool_)
    mask[30 : 30 + width, 8:56] = True
    return mask


def contrast(image: ImageArray, mask: MaskArray) -> float:
    return Rings.of(mask, RING).relative_contrast(image)


def added(image: ImageArray, good: ImageArray, mask: MaskArray) -> float:
    return float(np.sqrt(max(0.0, contrast(image, mask) ** 2 - contrast(good, mask) ** 2)))


def darker(mask: MaskArray, levels: float) -> Change:
    coarse = -levels * mask[..., None].astype(np.float32).repeat(3, 2)
    return Change(coarse, np.zeros_like(coarse))


@pytest.mark.parametrize("wanted", [0.15, 0.32])
@pytest.mark.parametrize("width", [2, 7])
def test_a_defect_is_laid_with_the_contrast_that_is_wanted(width: int, wanted: float) -> None:
    image, mask = surface(4, 64, 64), stroke(width)
    canvas = make_canvas(image, mask, 1.0, 64, 4, np.random.default_rng(0))
    drawn = image - 40 * ndimage.gaussian_filter(mask.astype(np.float32), 2)[..., None] / 0.5
    drawn[mask] = image[mask].astype(np.float32) - 40
    plain, matched = (
        lay_defect(image, canvas, drawn, image.astype(np.float32), mask, None, 0, level) for level in (None, wanted)
    )
    assert added(matched, image, mask) == pytest.approx(wanted, rel=0.08)
    assert added(plain, image, mask) != pytest.approx(wanted, rel=0.08)
    far = ndimage.distance_transform_edt(~mask) > FADE
    assert np.array_equal(matched[far], image[far])
    assert not np.array_equal(matched[~far & ~mask], plain[~far & ~mask])  # its rim is scaled with it


@pytest.mark.parametrize("scale", [0.5, 1.0])
def test_a_mask_that_fills_the_photograph_is_laid_as_it_was_drawn(scale: float) -> None:
    image = surface(4, 64, 64)
    canvas = make_canvas(image, ALL, scale, 64, 4, np.random.default_rng(0))
    drawn = np.full((*canvas.mask.shape, 3), 30, np.float32)
    plain, matched = (lay_defect(image, canvas, drawn, drawn + 60, ALL, None, 0, level) for level in (None, 0.3))
    assert np.array_equal(plain, matched)


def test_a_scale_keeps_to_its_range() -> None:
    image, mask = np.full((64, 64, 3), 120, np.uint8), stroke(5)
    scales = [find_scale(wanted, darker(mask, 40), image, mask) for wanted in (1e-6, 40 / 136, 1e6)]
    assert scales == pytest.approx([SCALES[0], 1.0, SCALES[1]], rel=0.03)


@pytest.mark.parametrize("levels", [0, 5, 10])
def test_what_only_takes_away_from_the_surfaces_own_contrast_is_left_as_it_was_drawn(levels: float) -> None:
    """So does a faint bright crack on a dark band."""
    image, mask = np.full((64, 64, 3), 120, np.uint8), stroke(5)
    image[mask] = 80
    assert find_scale(0.2, darker(mask, -levels), image, mask) == 1


def test_a_surfaces_own_contrast_does_not_count() -> None:
    striped, mask = np.full((64, 64, 3), 120, np.uint8), stroke(7)
    striped[::4] = 60
    plain = np.full((64, 64, 3), int(striped.mean()), np.uint8)
    assert contrast(striped, mask) > 0.05
    on_plain, on_striped = (find_scale(0.25, darker(mask, 40), image, mask) for image in (plain, striped))
    found = lay_scaled(darker(mask, 40), striped, on_striped, ALL)
    assert added(found, striped, mask) == pytest.approx(0.25, rel=0.05)
    assert on_striped > 1.05 * on_plain


def test_a_defect_that_is_drawn_stronger_keeps_its_colours() -> None:
    image = np.full((64, 64, 3), 150, np.uint8)
    coarse = np.broadcast_to(np.array((-90, -60, -30), np.float32), image.shape)
    change = Change(coarse, np.zeros_like(coarse))
    weaker, plain, stronger = (lay_scaled(change, image, scale, ALL)[0, 0].astype(int) for scale in (0.5, 1.0, 1.5))
    assert weaker.tolist() == [105, 120, 135]
    assert plain.tolist() == [60, 90, 120]
    assert stronger.tolist() == [30, 60, 90]


def test_a_defect_that_colours_alone_tell_is_not_made_darker() -> None:
    """A red one on grey would only stand out less."""
    image, mask = np.full((64, 64, 3), 120, np.uint8), stroke(5)
    coarse = mask[..., None] * np.array((40, -25, -30), np.float32)
    assert find_scale(0.6, Change(coarse, np.zeros_like(coarse)), image, mask) == 1
    assert find_scale(0.1, Change(coarse, np.zeros_like(coarse)), image, mask) < 0.6


def test_a_large_defect_that_fades_wide_is_not_drawn_stronger_for_its_rim() -> None:
    image = np.full((200, 200, 3), 150, np.uint8)
    mask = np.hypot(*(np.mgrid[:200, :200] - 100)) < 60
    canvas = make_canvas(image, mask, 0.3, 64, 4, np.random.default_rng(0))
    even = np.full((*canvas.mask.shape, 3), 150, np.float32)
    drawn = even - 60 * canvas.mask[..., None]
    real = np.where(mask[..., None], np.uint8(90), image)
    laid = lay_defect(image, canvas, drawn, even, mask, None, 0, contrast(real, mask))
    assert laid[100, 100, 0] == pytest.approx(90, abs=12)


def test_contrasts_vary_about_those_of_the_real_defects() -> None:
    real = RealContrast([0.1, 0.4])
    drawn = np.array([real.draw(seed) for seed in range(200)])
    apart = np.log(drawn[:, None] / np.array(real.known))
    assert np.sqrt(np.square(apart).min(1).mean()) == pytest.approx(0.15, rel=0.2)
    assert 0.3 < np.mean(drawn > 0.2) < 0.7
    assert real.draw(5) == real.draw(5)


def test_every_type_has_the_contrasts_of_its_own_photographs(adapter: AnomalyDiffusionAdapter) -> None:
    for kind, crops in enumerate((adapter.crops[:2], adapter.crops[2:])):
        found = real_contrast(adapter, kind)
        assert found is not None
        own = [[adapter.references[number] for number in each] for each in crops]
        wanted = [np.mean([contrast(pair.image, pair.mask) for pair in pairs]) for pairs in own]
        assert found.known == pytest.approx(wanted)
    grey = [replace(each, image=np.full_like(each.image, 128)) for each in adapter.references]
    assert real_contrast(replace(adapter, references=grey), 0) is None


def test_black_and_white_photographs_have_no_contrast_to_match(adapter: AnomalyDiffusionAdapter) -> None:
    stripes = np.where(np.mgrid[:96, :96][1] % 16 < 6, 0, 255).astype(np.uint8)
    black_and_white = [
        replace(each, image=np.repeat(stripes[: each.mask.shape[0], : each.mask.shape[1], None], 3, 2))
        for each in adapter.references
    ]
    assert real_contrast(replace(adapter, references=black_and_white), 0) is None


def test_pairs_of_given_masks_are_matched_each_to_its_own_type(adapter: AnomalyDiffusionAdapter) -> None:
    height, width = NORMALS[0].image.shape[:2]
    wide = np.zeros((height, width), np.bool_)
    wide[height // 2 - 4 : height // 2 + 4, 4 : width - 4] = True
    places = Places([GivenMask("wide", wide)])

    def filled(used: AnomalyDiffusionAdapter, start: int = 0, batch: int = 2) -> list[Candidate]:
        return sampled(used, start, 4, match_detail=False, places=places, batch=batch)

    unmatched = tiny_adapter(adapter.base, ("break", "crack"), match_contrast=False)
    matched, plain = filled(adapter), filled(pushed(unmatched))
    assert [one.defect for one in matched] == ["break", "crack"] * 2
    assert all((one.image != other.image).any() for one, other in zip(matched, plain, strict=True))
    for one in matched:
        good = next(normal.image for normal in NORMALS if normal.name == one.normal)
        assert np.array_equal(one.mask, wide)
        assert not (one.image != good).any(-1)[ndimage.distance_transform_edt(~wide) > FADE].any()
    for again in (filled(adapter, 2), filled(adapter, 2, batch=1)):
        assert all(np.array_equal(one.image, other.image) for one, other in zip(again, matched[2:], strict=True))
    breaks = adapter.references_of("break")
    cracks = [replace(each, image=each.image // 3 + 80) for each in adapter.references_of("crack")]
    others = filled(replace(adapter, references=[*breaks, *cracks]))
    changed = [bool((one.image != other.image).any()) for one, other in zip(others, matched, strict=True)]
    assert changed == [False, True, False, True]


def test_a_push_that_the_user_chose_is_left_alone(adapter: AnomalyDiffusionAdapter) -> None:
    matched, chosen = (
        prepare_sampling(adapter, AnomalySamplingConfig(normal_guidance=push), normals=NORMALS).contrasts
        for push in (0.0, 1.2)
    )
    assert None not in matched
    assert chosen == [None, None]


def test_what_is_visible_enough_without_a_push_is_made_no_weaker(adapter: AnomalyDiffusionAdapter) -> None:
    def weakest(used: AnomalyDiffusionAdapter) -> list[float]:
        contrasts = prepare_sampling(used, AnomalySamplingConfig(), normals=NORMALS).contrasts
        return [each.weakest for each in contrasts if each is not None]

    assert weakest(pushed(adapter, **{"break": 1.0})) == [1.0, SCALES[0]]
    assert weakest(replace(adapter, card={**adapter.card, MATCHED: 1.2})) == [SCALES[0]] * 2
    unasked = {name: value for name, value in adapter.card.items() if name != MATCHED}
    assert weakest(replace(adapter, card=unasked)) == [SCALES[0]] * 2
    image, mask = surface(4, 64, 64), stroke(7)
    scales = [find_scale(wanted, darker(mask, 40), image, mask, 1.0) for wanted in (0.05, 40 / 136, 0.4)]
    assert scales[0] == 1
    assert 1.2 < scales[2] <= SCALES[1]


def test_a_hole_stays_a_hole_whatever_the_contrast_of_the_real_ones(adapter: AnomalyDiffusionAdapter) -> None:
    def changes(used: AnomalyDiffusionAdapter) -> list[float]:
        good = {normal.name: normal.image for normal in NORMALS}
        pairs = sampled(used, 0, 4, match_detail=False)
        return [
            float(np.abs(pair.image[pair.mask].astype(float) - good[pair.normal or ""][pair.mask]).mean())
            for pair in pairs
        ]

    faint = replace(adapter, references=[replace(each, image=each.image // 8 + 100) for each in adapter.references])
    unmatched = changes(tiny_adapter(adapter.base, ("break", "crack"), match_contrast=False))
    enough, weakened = (changes(pushed(faint, **dict.fromkeys(("break", "crack"), scale))) for scale in (1.0, 1.1))
    assert np.allclose(enough, unmatched, rtol=0.06)
    assert np.less(weakened, 0.7 * np.array(unmatched)).all()
