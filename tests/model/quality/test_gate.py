"""What the quality gate accepts and rejects, stated on drawn defects and on real photographs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from model.data.placement import NormalImage
from model.quality.gate import QualityGate, RejectReason
from model.quality.visibility import contrast, image_border, outline_share
from model.types import GREY, Candidate, ImageArray, MaskArray, Pair, anomaly_part
from service.core.options.quality import QualityLimits

SIZE = 64
ROWS, COLUMNS = np.mgrid[:SIZE, :SIZE]


def blob(row: float, column: float, phase: float, radius: float = 7.0) -> MaskArray:
    """A lobed blot, another shape for each phase."""
    angle = np.arctan2(ROWS - row, COLUMNS - column)
    edge = radius * (1 + 0.35 * np.cos(3 * angle + phase) + 0.25 * np.cos(2 * angle + 2 * phase))
    return np.asarray(np.hypot(ROWS - row, COLUMNS - column) < edge)


def surface(seed: int, depth: float = 45.0, mask: MaskArray | None = None) -> ImageArray:
    """Brushed metal, darker and mottled inside the mask."""
    rng = np.random.default_rng(seed)
    pixels = 140 + 6 * rng.standard_normal(SIZE)[None, :] + 4 * rng.standard_normal((SIZE, SIZE))
    if mask is not None:
        mottle = np.kron(rng.uniform(0.5, 1.5, (16, 16)), np.ones((4, 4)))
        pixels = pixels - depth * mask * mottle
    return np.repeat(np.clip(pixels, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def generated(image: ImageArray, mask: MaskArray, normal: str | None = "good.png") -> Candidate:
    return Candidate(index=0, seed=0, image=image, mask=mask, part=anomaly_part(image, mask), normal=normal)


def drawn(seed: int, mask: MaskArray | None = None, normal: str | None = "good.png", depth: float = 45.0) -> Candidate:
    mask = blob(20 + seed % 24, 44 - seed % 17, phase=1.7 * seed) if mask is None else mask
    return generated(surface(seed, depth, mask), mask, normal)


REALS = [Pair(f"real{seed}", (one := drawn(seed)).image, one.mask) for seed in (1, 2, 3, 4)]


@pytest.fixture(scope="module")
def gate() -> QualityGate:
    return QualityGate(REALS)


def test_a_new_visible_defect_is_accepted_without_reasons(gate: QualityGate) -> None:
    verdict = gate.check(drawn(11))
    assert verdict.accepted
    assert verdict.reasons == ()


def test_scores_are_plain_finite_numbers(gate: QualityGate) -> None:
    scores = gate.check(drawn(11, normal=None)).scores
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores


NOTHING = np.zeros((SIZE, SIZE), dtype=np.bool_)
FRAME = image_border((SIZE, SIZE)) | np.pad(image_border((SIZE - 2, SIZE - 2)), 1)
ELSEWHERE = blob(44, 20, 5.0)


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        pytest.param(generated(surface(9), NOTHING), RejectReason.EMPTY_MASK, id="no mask"),
        pytest.param(generated(surface(9), ~NOTHING), RejectReason.FULL_MASK, id="all mask"),
        pytest.param(generated(surface(9), ~blob(32, 32, 0.0)), RejectReason.FULL_MASK, id="all but a blot"),
        pytest.param(drawn(9, blob(32, 32, 0.0, radius=2)), RejectReason.MASK_TOO_SMALL, id="a speck"),
        pytest.param(drawn(9, blob(32, 32, 0.0, radius=22)), RejectReason.MASK_TOO_LARGE, id="a third of the image"),
        pytest.param(drawn(9, FRAME), RejectReason.BORDER_HUGGING, id="a frame"),
        pytest.param(drawn(9, blob(1, 32, 0.0)), RejectReason.BORDER_HUGGING, id="at the image border"),
        pytest.param(generated(surface(9), ELSEWHERE), RejectReason.INVISIBLE, id="mask on good surface"),
        pytest.param(drawn(9, ELSEWHERE, depth=4), RejectReason.INVISIBLE, id="a tenth of the real contrast"),
        pytest.param(
            replace(drawn(9), part=np.full((SIZE, SIZE, 3), 230, dtype=np.uint8)),
            RejectReason.PART_DISAGREES,
            id="part of another brightness",
        ),
    ],
)
def test_each_fault_is_named(gate: QualityGate, candidate: Candidate, reason: RejectReason) -> None:
    verdict = gate.check(candidate)
    assert not verdict.accepted
    assert reason in verdict.reasons


def test_image_and_part_are_compared_where_the_part_is_not_blank(gate: QualityGate) -> None:
    """Where it is blank everywhere, in all of the mask."""
    candidate = drawn(9)
    part = np.full((SIZE, SIZE, 3), GREY, np.uint8)
    blank = gate.check(replace(candidate, part=part.copy())).scores["disagreement"]
    half = candidate.mask & (int(np.median(np.nonzero(candidate.mask)[0])) <= ROWS)
    part[half] = candidate.image[half]
    assert gate.check(replace(candidate, part=part)).scores["disagreement"] == 0
    assert blank > 1


def test_every_fault_of_a_candidate_is_named(gate: QualityGate) -> None:
    speck_on_good_surface = generated(surface(9), blob(0, 32, 0.0, radius=2))
    reasons = set(gate.check(speck_on_good_surface).reasons)
    assert reasons >= {RejectReason.MASK_TOO_SMALL, RejectReason.BORDER_HUGGING, RejectReason.INVISIBLE}


def test_a_mask_belongs_on_the_object(gate: QualityGate) -> None:
    candidate = drawn(11)
    assert gate.check(candidate, object_mask=~NOTHING).accepted
    assert gate.check(candidate, object_mask=~candidate.mask).reasons == (RejectReason.OFF_OBJECT,)


def test_defects_may_touch_the_image_border_as_the_real_ones_do() -> None:
    at_border = [drawn(seed, blob(1, 16 + 8 * seed, 1.7 * seed)) for seed in (1, 2, 3)]
    candidate = drawn(9, blob(62, 25, 4.0))
    assert RejectReason.BORDER_HUGGING in QualityGate(REALS).check(candidate).reasons
    with_breaks = QualityGate([*REALS, *(Pair("break", each.image, each.mask) for each in at_border)])
    assert RejectReason.BORDER_HUGGING not in with_breaks.check(candidate).reasons


def test_a_defect_cut_off_by_a_window_inside_the_image_is_rejected_whatever_the_real_ones_do() -> None:
    at_border = [drawn(seed, blob(1, 16 + 8 * seed, 1.7 * seed)) for seed in (1, 2, 3)]
    gate = QualityGate([Pair("break", each.image, each.mask) for each in at_border])
    mask = blob(31, 25, 4.0) & (ROWS >= 30)
    cut = replace(drawn(9, mask), window=(0, 30, SIZE, SIZE))
    verdict = gate.check(cut)
    assert RejectReason.BORDER_HUGGING in verdict.reasons
    assert verdict.scores["border"] == 0
    assert verdict.scores["cut"] > 0


def test_areas_are_compared_as_shares_of_the_window() -> None:
    candidate = drawn(11)
    large = np.pad(candidate.image, ((0, 256), (0, 256), (0, 0)), mode="symmetric")
    in_large = replace(
        candidate,
        image=large,
        mask=np.pad(candidate.mask, (0, 256)),
        part=np.pad(candidate.part, ((0, 256), (0, 256), (0, 0)), constant_values=GREY),
        window=(0, 0, SIZE, SIZE),
    )
    gate = QualityGate(REALS)
    assert gate.check(in_large).scores["area"] == gate.check(candidate).scores["area"]
    assert gate.check(in_large).accepted
    whole = gate.check(replace(in_large, window=None))
    assert RejectReason.MASK_TOO_SMALL in whole.reasons


def noisy(image: ImageArray) -> ImageArray:
    noise = np.random.default_rng(5).normal(0, 5, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


COPIES: dict[str, Callable[[ImageArray, MaskArray], tuple[ImageArray, MaskArray]]] = {
    "same": lambda image, mask: (image, mask),
    "noisy": lambda image, mask: (noisy(image), mask),
    "brighter": lambda image, mask: (np.minimum(image.astype(int) + 12, 255).astype(np.uint8), mask),
    "left-right": lambda image, mask: (image[:, ::-1], mask[:, ::-1]),
    "upside-down": lambda image, mask: (image[::-1], mask[::-1]),
}


@pytest.mark.parametrize("copy", COPIES.values(), ids=COPIES.keys())
@pytest.mark.parametrize("normal", [None, "good.png"])
class TestNearCopies:
    def test_of_a_real_pair_are_rejected(
        self,
        gate: QualityGate,
        copy: Callable[[ImageArray, MaskArray], tuple[ImageArray, MaskArray]],
        normal: str | None,
    ) -> None:
        for real in REALS:
            assert gate.check(generated(*copy(real.image, real.mask), normal)).reasons == (RejectReason.COPY_OF_REAL,)

    def test_of_an_accepted_pair_are_rejected(
        self, copy: Callable[[ImageArray, MaskArray], tuple[ImageArray, MaskArray]], normal: str | None
    ) -> None:
        gate = QualityGate(REALS)
        first = drawn(11, normal=normal)
        again = generated(*copy(first.image, first.mask), normal)
        assert gate.check(again).accepted
        gate.accept(first)
        assert gate.check(again).reasons == (RejectReason.COPY_OF_ACCEPTED,)


def test_a_real_defect_moved_onto_another_surface_is_a_copy(gate: QualityGate) -> None:
    real = REALS[0]
    moved = np.roll(real.mask, (12, -9), axis=(0, 1))
    image = np.where(moved[..., None], np.roll(real.image, (12, -9), axis=(0, 1)), surface(21))
    assert RejectReason.COPY_OF_REAL in gate.check(generated(image, moved)).reasons


def test_two_defects_on_one_background_are_no_copies() -> None:
    gate = QualityGate(REALS)
    masks = blob(20, 20, 5.0), blob(42, 40, 9.0)
    background = surface(30)
    one, other = (
        generated(np.where(mask[..., None], drawn(seed, mask).image, background), mask)
        for seed, mask in zip((31, 32), masks, strict=True)
    )
    gate.accept(one)
    assert gate.check(other).accepted


def test_a_check_changes_nothing() -> None:
    gate = QualityGate(REALS)
    candidate = drawn(11)
    assert gate.check(candidate) == gate.check(candidate)


def test_accepting_the_stored_pairs_again_restores_the_verdicts() -> None:
    candidates = [drawn(seed, normal=None) for seed in (11, 12, 13, 11, 14, 12)]
    uninterrupted, verdicts = QualityGate(REALS), []
    for candidate in candidates:
        verdicts.append(uninterrupted.check(candidate))
        if verdicts[-1].accepted:
            uninterrupted.accept(candidate)
    resumed = QualityGate(REALS)
    for candidate, verdict in zip(candidates[:3], verdicts[:3], strict=True):
        if verdict.accepted:
            # A stored pair has no part any more.
            resumed.accept(replace(candidate, part=np.zeros((0, 0, 3), dtype=np.uint8)))
    for candidate, verdict in zip(candidates[3:], verdicts[3:], strict=True):
        assert resumed.check(candidate) == verdict
        if verdict.accepted:
            resumed.accept(candidate)
    assert [verdict.accepted for verdict in verdicts] == [True, True, True, False, True, False]


def test_a_gate_needs_real_pairs() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        QualityGate([])


def test_contrast_is_the_step_across_the_outline() -> None:
    mask = blob(32, 32, 1.0)
    image = np.where(mask[..., None], np.array([150, 100, 90]), 100).astype(np.uint8)
    difference, texture = contrast(image, mask, ring=3)
    assert difference == pytest.approx(50, abs=0.01)
    assert texture == pytest.approx(0, abs=0.01)


def test_contrast_sees_a_defect_dark_at_one_end_and_bright_at_the_other() -> None:
    mask = (np.abs(ROWS - 32) < 5) & (np.abs(COLUMNS - 32) < 20)
    step = np.where(COLUMNS < 32, -40, 40) * mask
    image = np.repeat((120 + step)[..., None], 3, axis=2).astype(np.uint8)
    assert contrast(image, mask, ring=3)[0] > 30


def test_texture_is_what_tells_a_matt_patch_from_a_polished_one() -> None:
    mask = blob(32, 32, 1.0)
    checks = np.where((ROWS + COLUMNS) % 2, 30, -30) * mask
    image = np.repeat((120 + checks)[..., None], 3, axis=2).astype(np.uint8)
    difference, texture = contrast(image, mask, ring=3)
    assert difference < 5
    assert texture == pytest.approx(30, abs=1)


def test_outline_share_of_a_centred_and_of_a_halved_disc() -> None:
    border = image_border((SIZE, SIZE))
    assert outline_share(blob(32, 32, 0.0), border) == 0
    assert 0.2 < outline_share(np.hypot(ROWS, COLUMNS - 32) < 9, border) < 0.6


def on_good(mask: MaskArray, change: MaskArray | None = None) -> Candidate:
    """A defect where `change` says, by default where the mask is, on the good part that the gate knows."""
    change = mask if change is None else change
    defect = drawn(11, change).image
    return generated(np.where(change[..., None], defect, surface(77)), mask, "known.png")


KNOWN = NormalImage("known.png", surface(77))
PLACE = blob(24, 40, 2.0)


def test_a_mask_must_hold_the_change_of_the_good_part() -> None:
    gate = QualityGate(REALS, normals=[KNOWN])
    assert gate.check(on_good(PLACE)).accepted
    for mask in (
        ndimage.binary_erosion(PLACE, iterations=2),
        ndimage.binary_dilation(PLACE, iterations=3),
        np.roll(PLACE, (4, -4), axis=(0, 1)),
        PLACE | np.roll(PLACE, 14, axis=0),
    ):
        reasons = gate.check(on_good(mask, PLACE)).reasons
        assert RejectReason.MASK_DIFFERS_FROM_CHANGE in reasons
        # The same pair on a good part that is not at hand cannot be compared with it.
        unknown = replace(on_good(mask, PLACE), normal="another.png")
        assert RejectReason.MASK_DIFFERS_FROM_CHANGE not in gate.check(unknown).reasons


def test_a_good_part_as_it_is_shows_no_defect() -> None:
    untouched = generated(KNOWN.image, PLACE, KNOWN.name)
    reasons = QualityGate(REALS, normals=[KNOWN]).check(untouched).reasons
    assert {RejectReason.INVISIBLE, RejectReason.MASK_DIFFERS_FROM_CHANGE} <= set(reasons)


def test_a_mask_that_nearly_misses_two_limits_is_too_small() -> None:
    away = np.abs(ROWS - 32)
    fading = 60 * np.exp(-away / 4) * (np.abs(COLUMNS - 32) < 24)
    image = np.clip(KNOWN.image - fading[..., None], 0, 255).astype(np.uint8)
    narrow, wide = ((away <= half) & (np.abs(COLUMNS - 32) < 24) for half in (1, 2))
    gate = QualityGate(REALS, normals=[KNOWN])
    found, passed = (gate.check(generated(image, mask, KNOWN.name)) for mask in (narrow, wide))
    assert found.scores["change_precision"] > gate.limits.min_change_inside
    assert found.scores["change_ledge"] < gate.limits.max_ledge
    assert RejectReason.MASK_DIFFERS_FROM_CHANGE in found.reasons
    assert RejectReason.MASK_DIFFERS_FROM_CHANGE not in passed.reasons


def test_a_dark_photograph_may_show_as_much_less_as_it_is_darker(gate: QualityGate) -> None:
    light = drawn(11)
    dark = replace(light, image=(light.image * 0.25).astype(np.uint8), part=None)
    faint = generated(surface(11, 11, light.mask), light.mask)
    shown = [gate.check(each) for each in (dark, faint)]
    assert abs(shown[0].scores["contrast"] - shown[1].scores["contrast"]) < 3
    assert [RejectReason.INVISIBLE in each.reasons for each in shown] == [False, True]


def test_the_fewer_pairs_the_more_of_a_mask_may_touch_the_image_border() -> None:
    touching = drawn(9, blob(5, 32, 0.0))
    share = outline_share(touching.mask, image_border((SIZE, SIZE)))
    assert 0.1 < share < 0.2
    many = [drawn(seed) for seed in range(1, 13)]
    for count, hugs in ((2, False), (12, True)):
        gate = QualityGate([Pair(str(number), each.image, each.mask) for number, each in enumerate(many[:count])])
        assert (RejectReason.BORDER_HUGGING in gate.check(touching).reasons) is hugs


def circuit(shift: int = 0) -> ImageArray:
    """Black tracks and white gaps between them, 12 pixels wide, as a scanner of two levels sees them."""
    grey = np.where((COLUMNS + shift) // 12 % 2, 255, 0).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def bridge(column: int, row: int, height: int) -> MaskArray:
    """A gap that is filled: `column` is that of its left end."""
    return (np.abs(ROWS - row) < height) & (np.abs(COLUMNS - column - 5.5) < 6)


def shorted(column: int, row: int, height: int) -> tuple[ImageArray, MaskArray]:
    mask = bridge(column, row, height)
    return np.where(mask[..., None], np.uint8(0), circuit()), mask


SHORTS = [
    Pair(str(row), *shorted(column, row, height)) for column, row, height in ((12, 20, 3), (36, 44, 5), (12, 50, 4))
]


def test_where_a_circuit_hides_half_a_defect_a_mask_must_still_change_all_of_it() -> None:
    good = NormalImage("good.png", circuit())
    gate = QualityGate(SHORTS, normals=[good])
    image, mask = shorted(36, 24, 3)
    assert RejectReason.MASK_DIFFERS_FROM_CHANGE not in gate.check(generated(image, mask)).reasons
    with_track = mask | bridge(24, 24, 3)
    assert RejectReason.MASK_DIFFERS_FROM_CHANGE in gate.check(generated(image, with_track)).reasons


def test_noise_is_no_defect_of_a_circuit() -> None:
    image, mask = shorted(36, 24, 5)
    image[mask] = np.random.default_rng(0).integers(0, 256, (int(mask.sum()), 1))
    assert RejectReason.UNLIKE_REAL in QualityGate(SHORTS).check(generated(image, mask)).reasons


@pytest.mark.parametrize("paint", ["noise", "white", "black"])
def test_what_looks_unlike_the_real_defects_is_rejected(gate: QualityGate, paint: str) -> None:
    image = surface(9)
    noise = np.random.default_rng(0).integers(0, 256, (int(PLACE.sum()), 1))
    image[PLACE] = {"noise": noise, "white": 255, "black": 0}[paint]
    assert RejectReason.UNLIKE_REAL in gate.check(generated(image, PLACE)).reasons


def test_the_shape_of_a_mask_counts_unless_the_user_gives_it() -> None:
    square = drawn(11, SHAPES["square"])
    assert QualityGate(REALS).check(square).reasons == (RejectReason.UNLIKE_REAL,)
    assert QualityGate(REALS, judges_shape=False).check(square).reasons == ()


SHAPES = {
    "square": (abs(ROWS - 30) < 8) & (abs(COLUMNS - 34) < 9),
    "disc": np.hypot(ROWS - 30, COLUMNS - 34) < 9,
    "line": (abs(ROWS - 30) < 1) & (abs(COLUMNS - 34) < 20),
    "zigzag": abs(ROWS - 20 - abs(COLUMNS % 16 - 8)) < 2,
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_mask_that_the_user_gives_may_be_of_any_shape_but_what_fills_it_may_not_be_anything(shape: str) -> None:
    mask, given = SHAPES[shape], QualityGate(REALS, judges_shape=False)
    unlike = RejectReason.UNLIKE_REAL
    assert unlike not in given.check(drawn(11, mask)).reasons
    for paint in (255, 0):
        image = surface(9)
        image[mask] = paint
        assert unlike in given.check(generated(image, mask)).reasons


def test_without_rejecting_everything_but_an_empty_or_full_mask_is_accepted_and_measured() -> None:
    lenient = QualityGate(REALS, QualityLimits(reject=False))
    strict = QualityGate(REALS)
    real = REALS[0]
    copy = generated(real.image, real.mask)
    assert strict.check(copy).reasons == (RejectReason.COPY_OF_REAL,)
    assert lenient.check(copy).reasons == ()
    assert lenient.check(copy).scores == strict.check(copy).scores
    assert lenient.check(generated(surface(9), NOTHING)).reasons == (RejectReason.EMPTY_MASK,)
    assert lenient.check(generated(surface(9), ~NOTHING)).reasons == (RejectReason.FULL_MASK,)


def test_the_score_is_a_share_and_a_better_pair_has_more_of_it() -> None:
    gate = QualityGate(REALS, normals=[KNOWN])
    good = gate.check(on_good(PLACE)).scores["score"]
    shifted = gate.check(on_good(np.roll(PLACE, 3, axis=1), PLACE)).scores["score"]
    beside = gate.check(on_good(np.roll(PLACE, 20, axis=0), PLACE)).scores["score"]
    assert 0 <= beside < shifted < good <= 1


def test_masks_may_lie_off_the_object_as_far_as_the_real_ones_do() -> None:
    objects = [~real.mask for real in REALS]
    gate = QualityGate(REALS, real_objects=objects)
    candidate = drawn(11, normal=None)
    assert gate.check(candidate, object_mask=~candidate.mask).accepted
    # On a good part the object is whole, so the limit stays.
    assert gate.check(drawn(11), object_mask=~candidate.mask).reasons == (RejectReason.OFF_OBJECT,)


def photographs(folder: Path, defect: str, stems: list[str]) -> list[Pair]:
    pairs = []
    for stem in stems:
        with Image.open(folder / defect / "image" / f"{stem}.jpg") as image:
            pixels = np.asarray(image.convert("RGB"))
        with Image.open(folder / defect / "mask" / f"{stem}.png") as mask:
            pairs.append(Pair(stem, pixels, np.asarray(mask.convert("L")) > 127))
    return pairs


@pytest.mark.parametrize("defect", ["blowhole", "break", "crack"])
def test_real_defects_pass_against_one_another_and_their_copies_do_not(magnetic_tile: Path, defect: str) -> None:
    split = json.loads((magnetic_tile / "splits.json").read_text())["defects"][defect]
    tile_of = {stem: number for number, tile in enumerate(split["tiles"]) for stem in tile}
    train = photographs(magnetic_tile, defect, split["train"])
    gate = QualityGate(train)
    for real in train:
        others = QualityGate([other for other in train if other is not real])
        assert others.check(generated(real.image, real.mask, None)).accepted
        for normal in (None, "good.png"):
            for copy in COPIES.values():
                verdict = gate.check(generated(*copy(real.image, real.mask), normal))
                assert verdict.reasons == (RejectReason.COPY_OF_REAL,)

    exposures = [pair for pair in photographs(magnetic_tile, defect, split["train_other_exposures"]) if pair.mask.any()]
    verdicts = [
        QualityGate([real for real in train if tile_of[real.name] != tile_of[pair.name]]).check(
            generated(pair.image, pair.mask, None)
        )
        for pair in exposures
    ]
    # Dark exposures hardly show a crack, and the brightest ones a blowhole with a white rim.
    assert sum(verdict.accepted for verdict in verdicts) >= 0.93 * len(verdicts)
