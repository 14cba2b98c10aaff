"""What is drawn: into the mask and nowhere else, the same in any batch, where the user wants it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from model.anomalydiffusion.adapter import AnomalyDiffusionAdapter, RealMask
from model.anomalydiffusion.config import resolve_sampling
from model.anomalydiffusion.sampling.masks import usable
from model.anomalydiffusion.sampling.sampler import lay_defect, prepare_sampling
from model.data.detail import Redrawn, learn_detail
from model.data.laying import FADE
from model.data.placement import NormalImage
from model.data.references import make_references
from model.data.two_levels import TwoLevels
from model.data.windows import make_canvas
from model.diffusion.base import Base, load_base
from model.quality.gate import QualityGate, RejectReason
from model.types import Candidate, Pair
from service.core.errors import UsageError
from service.core.options.anomalydiffusion import AnomalySamplingConfig
from service.core.places import GivenMask, Places, Region
from tests.support.tiny_anomaly import NORMALS, sampled, tiny_adapter
from tests.support.tiny_data import half_seeing_u2net, surface


@pytest.fixture(scope="module")
def base(tiny_base: Path) -> Base:
    return load_base(str(tiny_base))


@pytest.fixture(scope="module")
def adapter(base: Base) -> AnomalyDiffusionAdapter:
    return tiny_adapter(base)


def changed(candidate: Candidate, normals: list[NormalImage]) -> np.ndarray:
    """Where a candidate differs from its photograph, `(H, W)` bool."""
    (normal,) = (each.image for each in normals if each.name == candidate.normal)
    differs: np.ndarray = (candidate.image != normal).any(-1)
    return differs


def same(one: list[Candidate], other: list[Candidate]) -> bool:
    return all(
        np.array_equal(a.image, b.image) and np.array_equal(a.mask, b.mask) for a, b in zip(one, other, strict=True)
    )


def test_outside_the_mask_and_its_feather_the_photograph_is_bit_identical(adapter: AnomalyDiffusionAdapter) -> None:
    for candidate in sampled(adapter, 0, 4):
        distance = ndimage.distance_transform_edt(~candidate.mask)
        differs = changed(candidate, NORMALS)
        assert differs[candidate.mask].mean() > 0.5
        assert not differs[distance > FADE].any()
        assert candidate.mask.shape == candidate.image.shape[:2]
        assert candidate.part is None


@pytest.mark.parametrize("chosen", [{}, {"scheduler": "EulerAncestralDiscreteScheduler", "guidance_scale": 2.0}])
def test_a_candidate_is_the_same_in_any_batch_and_after_resuming(
    adapter: AnomalyDiffusionAdapter, chosen: dict[str, object]
) -> None:
    whole = sampled(adapter, 0, 5, batch=4, **chosen)
    assert same(sampled(adapter, 0, 5, batch=1, **chosen), whole)
    assert same(sampled(adapter, 3, 5, batch=2, **chosen), whole[3:])
    assert [candidate.index for candidate in whole] == list(range(5))
    assert not same(sampled(adapter, 0, 1, seed=1, **chosen), whole[:1])


def test_reweighting_can_be_turned_off(adapter: AnomalyDiffusionAdapter) -> None:
    assert not same(sampled(adapter, 0, 1, steps=3), sampled(adapter, 0, 1, steps=3, reweighting=False))


def test_less_normal_guidance_keeps_defects_near_the_normal(adapter: AnomalyDiffusionAdapter) -> None:
    """An untrained autoencoder saturates, so that more of it would not show; and the detail that it loses is all."""
    plain, weak = (sampled(adapter, 0, 4, normal_guidance=scale, match_detail=False) for scale in (1.0, 0.05))
    photographs = {normal.name: normal.image.astype(int) for normal in NORMALS}

    def change(candidate: Candidate) -> float:
        assert candidate.normal is not None
        return float(np.abs(candidate.image.astype(int) - photographs[candidate.normal])[candidate.mask].mean())

    assert [np.array_equal(one.mask, other.mask) for one, other in zip(plain, weak, strict=True)] == [True] * 4
    assert 0 < sum(map(change, weak)) < 0.9 * sum(map(change, plain))


def test_candidates_take_the_good_parts_in_turn(adapter: AnomalyDiffusionAdapter) -> None:
    made = sampled(adapter, 0, 2 * len(NORMALS))
    names = sorted(normal.name for normal in NORMALS)
    for turn in (made[: len(NORMALS)], made[len(NORMALS) :]):
        assert sorted(str(candidate.normal) for candidate in turn) == names


def test_pairs_of_each_given_mask_take_the_good_parts_in_turn(adapter: AnomalyDiffusionAdapter) -> None:
    shape = NORMALS[0].image.shape[:2]
    first, second = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
    first[4:9, 4:12], second[30:40, 20:30] = True, True
    normals = [*NORMALS, *(replace(each, name=f"more {each.name}") for each in NORMALS)]
    places = Places([GivenMask("one", first), GivenMask("other", second)])
    found = sampled(adapter, 0, 2 * len(normals), normals, places=places)
    for own in (found[::2], found[1::2]):
        assert sorted(str(each.normal) for each in own) == sorted(each.name for each in normals)


def test_faint_places_are_pushed_farther_where_asked_or_recommended(adapter: AnomalyDiffusionAdapter) -> None:
    plain, pushed = (sampled(adapter, 0, 4, faint_guidance=gain) for gain in (1.0, 3.0))
    assert [np.array_equal(one.mask, other.mask) for one, other in zip(plain, pushed, strict=True)] == [True] * 4
    assert not same(plain, pushed)
    advised = replace(adapter.base, card={"sampling": {"faint_guidance": 3.0}})
    assert resolve_sampling(advised, {}, has_normals=True).faint_guidance == 3.0
    assert resolve_sampling(adapter.base, {}, has_normals=True).faint_guidance == 1.0


def test_a_crack_longer_than_the_window_stays_a_crack(adapter: AnomalyDiffusionAdapter) -> None:
    photograph = NormalImage("long", surface(5, 48, 300))
    crack = np.zeros((48, 300), np.bool_)
    crack[20:22, 10:290] = True
    (candidate,) = sampled(adapter, 0, 1, [photograph], places=Places([GivenMask("long", crack)]))
    assert np.array_equal(candidate.mask, crack)
    differs = changed(candidate, [photograph])
    assert differs[crack].reshape(2, -1).any(0).mean() > 0.9  # drawn from end to end
    assert not differs[ndimage.distance_transform_edt(~crack) > FADE].any()


@pytest.mark.parametrize("scheduler", ["dpmsolver++", "EulerAncestralDiscreteScheduler"])
def test_a_wide_defect_is_drawn_again_at_the_photographs_scale(base: Base, scheduler: str) -> None:
    """In any batch, in its mask alone; small defects stay as they are."""
    adapter = tiny_adapter(base)
    wide, small = np.zeros((200, 160), np.bool_), np.zeros((200, 160), np.bool_)
    wide[40:150, 30:130], small[60:70, 60:70] = True, True
    normals = [NormalImage(f"good{number}", surface(number, 200, 160)) for number in range(2)]
    masks = [GivenMask("wide", wide), GivenMask("small", small)]

    def drawn(**chosen: object) -> list[Candidate]:
        return sampled(adapter, 0, 4, normals=normals, places=Places(masks), scheduler=scheduler, **chosen)

    once, again = drawn(), drawn(refine_strength=0.5)
    assert same(again, drawn(refine_strength=0.5, batch=1))
    for one, other in zip(once, again, strict=True):
        assert np.array_equal(one.mask, other.mask)
        differs = (one.image != other.image).any(-1)
        assert differs.any() == (one.mask.sum() > 1000)
        assert not (differs & (ndimage.distance_transform_edt(~one.mask) > 20)).any()


def test_what_is_laid_ends_with_the_mask() -> None:
    image, mask = surface(4, 64, 64)[..., :1].repeat(3, 2), np.zeros((64, 64), np.bool_)
    mask[16:48, 16:48] = True
    canvas = make_canvas(image, mask, 1.0, 64, 4, np.random.default_rng(0))
    dark = np.full((64, 64, 3), 20, np.float32)
    laid = lay_defect(image, canvas, dark, image.astype(np.float32), mask, None, 0, None)
    assert np.abs(laid[20:44, 20:44].astype(int) - 20).max() <= 1
    assert np.array_equal(laid[:14], image[:14])


@pytest.mark.parametrize("scale", [0.5, 1.0])
def test_what_is_laid_on_black_and_white_is_so_at_any_scale(scale: float) -> None:
    stripes = np.where(np.mgrid[:96, :96][1] % 16 < 6, 0, 255).astype(np.uint8)
    image, mask = np.repeat(stripes[..., None], 3, 2), np.zeros((96, 96), np.bool_)
    mask[30:60, 28:63] = True
    real = np.where(mask[..., None], np.uint8(0), image)
    detail = learn_detail([Redrawn(real, real.astype(np.float32), mask)], TwoLevels(0, 255))
    canvas = make_canvas(image, mask, scale, 64, 4, np.random.default_rng(0))
    shape = (*canvas.mask.shape, 3)
    dark, bright = np.full(shape, 60, np.float32), np.full(shape, 230, np.float32)
    laid = lay_defect(image, canvas, dark, bright, mask, detail, 0, None)
    assert set(np.unique(laid)) == {0, 255}
    assert (laid[mask] == 0).all()
    differs = (laid != image).any(-1)
    assert not differs[ndimage.distance_transform_edt(~mask) > FADE / scale].any()


def test_detail_of_real_defects_is_added_inside_the_mask_alone(adapter: AnomalyDiffusionAdapter) -> None:
    plain, detailed = (sampled(adapter, 0, 4, match_detail=chosen) for chosen in (False, True))
    for one, other in zip(plain, detailed, strict=True):
        assert np.array_equal(one.mask, other.mask)
        differs = (one.image != other.image).any(-1)
        assert not differs[ndimage.distance_transform_edt(~one.mask) > FADE].any()
    assert any((one.image != other.image).any() for one, other in zip(plain, detailed, strict=True))


def test_every_type_has_its_own_detail_though_photographs_have_one_name(base: Base) -> None:
    adapter = tiny_adapter(base, ("break", "crack"))
    adapter.references = [replace(each, name="000") for each in adapter.references]
    config = AnomalySamplingConfig()
    first, second = prepare_sampling(adapter, config, normals=NORMALS).details
    changed_crops = [
        *adapter.references[:2],
        *(replace(each, image=255 - each.image) for each in adapter.references[2:]),
    ]
    adapter.references = changed_crops
    same_first, other = prepare_sampling(adapter, config, normals=NORMALS).details
    assert first is not None
    assert same_first is not None
    assert second is not None
    assert other is not None
    assert np.array_equal(np.concatenate(same_first.residuals), np.concatenate(first.residuals))
    assert not np.array_equal(np.concatenate(other.residuals), np.concatenate(second.residuals))


def test_given_masks_take_turns_on_the_photograph_of_their_name(adapter: AnomalyDiffusionAdapter) -> None:
    shape = NORMALS[0].image.shape[:2]
    first, second = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
    first[4:9, 4:12], second[30:40, 20:30] = True, True
    places = Places([GivenMask("good1.png", first), GivenMask("anywhere", second)])
    found = sampled(adapter, 0, 4, places=places)
    assert [np.array_equal(each.mask, mask) for each, mask in zip(found, [first, second] * 2, strict=True)] == [
        True
    ] * 4
    assert [each.normal for each in found[::2]] == ["good1", "good1"]


def test_masks_that_fit_no_photograph_are_refused_with_both_sizes(adapter: AnomalyDiffusionAdapter) -> None:
    wrong = Places([GivenMask("tall", np.ones((90, 44), np.bool_))])
    with pytest.raises(UsageError) as caught:
        sampled(adapter, 0, 1, places=wrong)
    assert caught.value.problems == [
        "tall is 44 × 90 pixels, but the normals are 44 × 56",
        "tall is all white: it must be black where no defect is wanted",
    ]


def test_what_changes_or_chooses_masks_is_refused_where_they_are_given(adapter: AnomalyDiffusionAdapter) -> None:
    mask = np.zeros(NORMALS[0].image.shape[:2], np.bool_)
    mask[4:9, 4:12] = True
    chosen = {"sizes": (0.5, 1.0), "angles": (0.0, 5.0), "anywhere": True, "defects_per_picture": 2}
    with pytest.raises(UsageError) as caught:
        sampled(adapter, 0, 1, places=Places([GivenMask("mine", mask)]), **chosen)
    assert [problem.partition(" ")[0] for problem in caught.value.problems] == list(chosen)
    assert caught.value.problems[0] == "sizes changes masks that are chosen, and these are given: leave it out"


def test_defects_lie_in_the_region_that_is_asked_for(adapter: AnomalyDiffusionAdapter) -> None:
    for candidate in sampled(adapter, 0, 4, region=(0.0, 0.5, 0.5, 1.0), steps=1):
        assert candidate.mask.any()
        assert not candidate.mask[:28].any()
        assert not candidate.mask[:, 22:].any()
    allowed = np.zeros((8, 8), np.bool_)
    allowed[:, 4:] = True
    right = Places(allowed=[Region(allowed)])
    for candidate in sampled(adapter, 0, 2, places=right, steps=1):
        assert not candidate.mask[:, :22].any()
    for candidate in sampled(adapter, 0, 2, places=Places(forbidden=[Region(allowed)]), steps=1):
        assert candidate.mask.any()
        assert not candidate.mask[:, 22:].any()
    with pytest.raises(UsageError, match="leave no place there"):
        sampled(adapter, 0, 1, places=right, region=(0.0, 0.0, 0.4, 1.0))


def test_a_region_in_which_no_mask_fits_is_the_reason_for_the_rejection(adapter: AnomalyDiffusionAdapter) -> None:
    (candidate,) = sampled(adapter, 0, 1, region=(0.0, 0.0, 0.06, 0.06), sizes=(3.0, 3.0), steps=1)
    assert not candidate.mask.any()
    assert candidate.scores["outside_region"] > 0.5
    assert QualityGate(adapter.references).check(candidate).reasons == (RejectReason.OUTSIDE_REGION,)


def test_each_type_goes_through_its_own_masks_and_those_for_any(base: Base) -> None:
    typed, shape = tiny_adapter(base, ("crack", "break")), NORMALS[0].image.shape[:2]
    masks = [np.zeros(shape, np.bool_) for _ in range(3)]
    for number, mask in enumerate(masks):
        mask[10 * number + 4 : 10 * number + 9, 4:12] = True
    places = Places([GivenMask("a", masks[0], "crack"), GivenMask("b", masks[1]), GivenMask("c", masks[2], "break")])
    found = sampled(typed, 0, 6, places=places, steps=1)
    shown = [next(number for number, mask in enumerate(masks) if mask[each.mask].all()) for each in found]
    assert [each.defect for each in found] == ["crack", "break"] * 3
    assert shown == [0, 1, 1, 2, 0, 1]
    with pytest.raises(UsageError, match="no mask is for break"):
        sampled(typed, 0, 1, places=Places([GivenMask("a", masks[0], "crack")]))


def test_masks_lie_where_it_looks_like_around_the_real_ones_unless_they_may_lie_anywhere(base: Base) -> None:
    """The real defects lie in a black stripe, the good part has one elsewhere."""
    adapter = tiny_adapter(base)
    height, width = adapter.masks[0].mask.shape
    real = np.full((height, width, 3), 255, np.uint8)
    real[:, width // 2 - 8 : width // 2 + 8] = 0
    mask = np.zeros((height, width), np.bool_)
    mask[height // 2 - 5 : height // 2 + 5, width // 2 - 3 : width // 2 + 3] = True
    real[mask] = 128
    config = adapter.model.config
    crops, placements = make_references([Pair("real", real, mask)], config.view, config.resolution, config.seed)
    adapter = replace(adapter, masks=[RealMask(0, mask)], references=crops, placements=placements)
    good = np.full((96, 160, 3), 255, np.uint8)
    good[:, 120:140] = 0
    normals = [NormalImage("good", good)]
    dark = good[..., 0] == 0
    found = [each.mask for each in sampled(adapter, 0, 4, normals, steps=1)]
    assert all(dark[each].mean() > 0.9 for each in found)
    free = [each.mask for each in sampled(adapter, 0, 8, normals, anywhere=True, steps=1)]
    assert any(dark[each].mean() < 0.5 for each in free)


def test_sizes_are_those_that_are_asked_for(adapter: AnomalyDiffusionAdapter) -> None:
    real = sorted(each.mask.sum() for each in adapter.masks)
    drawn = sorted(candidate.mask.sum() for candidate in sampled(adapter, 0, 4, sizes=(0.5, 0.5), steps=1))
    assert 0.6 * real[0] / 4 <= drawn[0] <= drawn[-1] <= 1.6 * real[-1] / 4, (real, drawn)


def test_several_defects_lie_in_one_picture_and_anywhere_if_that_is_asked_for(
    adapter: AnomalyDiffusionAdapter,
) -> None:
    wide = [NormalImage("wide", surface(8, 60, 240))]
    several = [each.mask for each in sampled(adapter, 0, 4, wide, defects_per_picture=3, anywhere=True, steps=1)]
    assert [ndimage.label(ndimage.binary_dilation(mask))[1] for mask in several] == [3] * 4  # none touches another
    near, anywhere = (
        [float(np.argwhere(each.mask)[:, 1].mean()) for each in sampled(adapter, 0, 6, wide, anywhere=free, steps=1)]
        for free in (False, True)
    )
    assert np.std(anywhere) > 1.3 * np.std(near)


def test_defects_lie_on_the_product_unless_that_is_turned_off(adapter: AnomalyDiffusionAdapter) -> None:
    """The network finds something in about half of the picture."""
    net = half_seeing_u2net()
    on = [each.mask for each in sampled(adapter, 0, 3, object_net=net, steps=1)]
    off = [each.mask for each in sampled(adapter, 0, 3, object_net=net, on_object=False, steps=1)]
    assert any(not np.array_equal(one, other) for one, other in zip(on, off, strict=True))


def test_where_the_product_is_not_allowed_defects_lie_beside_it(
    adapter: AnomalyDiffusionAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = np.zeros(NORMALS[0].image.shape[:2], np.bool_)
    left[:, :20] = True
    monkeypatch.setattr("model.masks.objects.Objects.in_normal", lambda *_: left)
    beside = sampled(adapter, 0, 2, object_net=half_seeing_u2net(), places=Places(allowed=[Region(~left)]), steps=1)
    assert all(each.mask.any() and not each.mask[left].any() for each in beside)


def test_empty_full_and_misplaced_masks_are_not_usable() -> None:
    half = np.zeros((10, 10), np.bool_)
    half[:, :5] = True
    assert usable(np.zeros((10, 10), np.bool_), None, None) == 0
    assert usable(np.ones((10, 10), np.bool_), None, None) == 0
    assert usable(half, None, None) == 1
    assert usable(half, half, ~half) == 0


def test_several_types_take_turns_and_are_named(base: Base) -> None:
    found = sampled(tiny_adapter(base, ["crack", "break"]), 0, 4, steps=1)
    assert [each.defect for each in found] == ["crack", "break", "crack", "break"]
    assert found[1].record()["defect"] == "break"


def test_grey_photographs_stay_grey(base: Base) -> None:
    adapter = tiny_adapter(base)
    adapter.card["greyscale"] = True
    adapter.references = [replace(each, image=np.repeat(each.image[..., :1], 3, axis=2)) for each in adapter.references]
    grey = NormalImage("grey", np.repeat(surface(3)[..., :1], 3, axis=2))
    (candidate,) = sampled(adapter, 0, 1, [grey])
    assert int(np.ptp(candidate.image, axis=2).max()) <= 1
