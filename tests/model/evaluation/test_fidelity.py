from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from model.evaluation.data import read_evaluation_data
from model.evaluation.features import Features, describe_defects
from model.evaluation.fidelity import BIT_IDENTICAL, KID_NAME, kernel_distance, measure_fidelity
from model.types import Candidate, ImageArray, MaskArray, Pair

pytest.importorskip("efficientnet_lite_pytorch")


def part(seed: int) -> ImageArray:
    return np.random.default_rng(seed).integers(90, 110, (80, 96, 3), np.uint8)


def blob(left: int = 30, size: int = 12) -> MaskArray:
    mask = np.zeros((80, 96), bool)
    mask[30 : 30 + size, left : left + size] = True
    return mask


def real(seed: int, level: int = 20) -> Pair:
    image, mask = part(seed), blob(20 + seed)
    image[mask] = level
    return Pair(f"{seed}", image, mask)


def candidate(pair: Pair, index: int = 0, normal: str | None = None) -> Candidate:
    return Candidate(index, index, pair.image, pair.mask, normal=normal)


def test_a_copy_is_as_near_as_can_be_and_names_its_original() -> None:
    reals = [real(1), real(2, 200), real(3)]
    fidelity = measure_fidelity(reals, [candidate(reals[1]), candidate(reals[0], 1)], {})
    assert fidelity.nearest_index == [1, 0]
    assert fidelity.per_pair_nearest == pytest.approx([1, 1])
    assert fidelity.nearest_real == pytest.approx(1)
    assert fidelity.nearest_among_reals is not None
    assert fidelity.nearest_among_reals < 0.99


def test_copies_of_one_pair_have_no_diversity() -> None:
    reals = [real(1), real(2, 200)]
    fidelity = measure_fidelity(reals, [candidate(reals[0], number) for number in range(3)], {})
    assert fidelity.diversity == pytest.approx(0, abs=1e-9)
    assert fidelity.diversity_of_reals is not None
    assert fidelity.diversity_of_reals > 0.01
    assert fidelity.diversity_against_reals == pytest.approx(fidelity.diversity_of_reals / 2)


def test_what_needs_two_is_not_measured_on_one() -> None:
    fidelity = measure_fidelity([real(1)], [candidate(real(2))], {})
    assert (fidelity.kid, fidelity.diversity, fidelity.diversity_of_reals, fidelity.nearest_among_reals) == (None,) * 4
    assert fidelity.kid_name == KID_NAME
    json.dumps(fidelity.as_dict(), allow_nan=False)


def test_features_do_not_depend_on_the_batch_nor_on_what_lies_far_from_the_defect() -> None:
    pair, others = real(1), [real(number) for number in range(2, 20)]
    elsewhere = pair.image.copy()
    elsewhere[:, 70:] = 0
    alone = describe_defects([(pair.image, pair.mask)])
    together = describe_defects((each.image, each.mask) for each in [*others, Pair("", elsewhere, pair.mask)])
    assert alone.last.shape == (1, 1280)
    assert alone.middle.shape == (1, 112)
    np.testing.assert_allclose(together.last[-1], alone.last[0], atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(together.directions, axis=1), 1)


def test_noise_within_a_mask_is_less_like_a_defect_than_another_real_one(magnetic_tile: Path) -> None:
    reals = read_evaluation_data(magnetic_tile, ["blowhole"]).defects["blowhole"].train
    noisy = [pair.image.copy() for pair in reals]
    for pair, image in zip(reals, noisy, strict=True):
        image[pair.mask] = np.random.default_rng(0).integers(0, 256, (int(pair.mask.sum()), 1))
    pairs = [Candidate(n, n, image, pair.mask) for n, (pair, image) in enumerate(zip(reals, noisy, strict=True))]
    fidelity = measure_fidelity(reals, pairs, {})
    assert fidelity.nearest_among_reals is not None
    assert fidelity.nearest_real < fidelity.nearest_among_reals - 0.1
    assert fidelity.kid is not None
    assert fidelity.kid > 0.5


def test_a_candidate_without_a_defect_is_described_too() -> None:
    image = part(1)
    assert np.isfinite(describe_defects([(image, np.zeros(image.shape[:2], bool))]).last).all()


def drawn(seed: int, count: int, shift: float = 0.0) -> Features:
    last = np.random.default_rng(seed).standard_normal((count, 1280)) + shift
    return Features(last[:, :112], last)


def test_kid_is_about_zero_for_one_distribution_and_grows_with_the_distance() -> None:
    same, near, far = (kernel_distance(drawn(1, 100), drawn(2, 80, shift)) for shift in (0.0, 0.2, 0.5))
    assert same is not None
    assert near is not None
    assert far is not None
    assert abs(same) < 0.002
    assert abs(same) < near < far


def test_kid_on_everything_is_the_mean_over_all_subsets() -> None:
    made, reals = drawn(1, 4), drawn(2, 5, 0.3)
    values = [
        kernel_distance(_chosen(made, some), _chosen(reals, others))
        for some in combinations(range(4), 3)
        for others in combinations(range(5), 3)
    ]
    assert kernel_distance(made, reals) == pytest.approx(np.mean([value for value in values if value is not None]))


def _chosen(features: Features, numbers: tuple[int, ...]) -> Features:
    return Features(features.middle[list(numbers)], features.last[list(numbers)])


def test_psnr_sees_only_what_lies_outside_the_mask() -> None:
    pair = real(1)
    fidelity = measure_fidelity([pair], [candidate(pair, normal="good")], {"good": part(1)})
    assert fidelity.psnr_outside is None
    assert fidelity.psnr_note == BIT_IDENTICAL
    assert fidelity.identical_outside == 1


def test_psnr_is_of_the_mean_error_over_pairs_on_known_good_parts() -> None:
    pair, normal = real(1), part(1)
    changed = pair.image.copy()
    changed[~pair.mask] += 10
    pairs = [candidate(pair, 0, "good"), candidate(Pair("", changed, pair.mask), 1, "good"), candidate(pair, 2)]
    fidelity = measure_fidelity([pair], pairs, {"good": normal})
    assert fidelity.psnr_outside == pytest.approx(10 * np.log10(255**2 / 50))
    assert fidelity.psnr_note == "of 2 of 3 pairs"
    assert fidelity.identical_outside == 0.5


def test_sharpness_is_against_real_defects() -> None:
    reals = [real(1), real(2), real(3)]
    same = measure_fidelity(reals, [candidate(each) for each in reals], {})
    assert same.sharpness == pytest.approx(1)
    grainy = [Pair(each.name, part(number + 10), each.mask) for number, each in enumerate(reals)]
    plain = measure_fidelity(grainy, [candidate(each) for each in reals], {})
    assert plain.sharpness_of_reals == pytest.approx(1, abs=0.2)
    assert plain.sharpness is not None
    assert plain.sharpness < 0.8


def test_pairs_without_a_known_good_part_have_no_psnr() -> None:
    fidelity = measure_fidelity([real(1)], [candidate(real(1)), candidate(real(2), 1, "unknown")], {"good": part(1)})
    assert fidelity.psnr_outside is None
    assert fidelity.identical_outside is None


def test_a_real_defect_is_most_like_one_of_its_own_type(magnetic_tile: Path) -> None:
    defects = read_evaluation_data(magnetic_tile).defects
    kinds = [kind for kind, split in defects.items() for _ in split.train]
    seen = describe_defects((pair.image, pair.mask) for split in defects.values() for pair in split.train).directions
    likeness = seen @ seen.T
    np.fill_diagonal(likeness, -1)
    right = [kinds[number] == kinds[int(other)] for number, other in enumerate(likeness.argmax(axis=1))]
    assert np.mean(right) > 0.7
