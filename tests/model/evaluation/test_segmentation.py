"""The detector: what it learns, that it draws no luck of its own, and sizes of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from model.data.crops import COVERED
from model.evaluation.metrics import measure
from model.evaluation.segmentation import (
    PRIOR,
    SCORE_FILTER,
    Example,
    UNet,
    detection_loss,
    image_score,
    predict,
    prepare_example,
    train_detector,
)
from model.runtime.progress import Progress
from service.core.errors import DivergedError
from tests.support.tiny_data import drawn_normal, drawn_pair
from tests.support.tiny_evaluation import TINY

CPU = torch.device("cpu")
LEARNT = replace(TINY, steps=90, batch=8)


def shown(seeds: Sequence[int]) -> list[Example]:
    return [prepare_example(pair.image, pair.mask, TINY) for pair in map(drawn_pair, seeds)]


def good(seeds: Sequence[int]) -> list[Example]:
    return [prepare_example(drawn_normal(seed).image, None, TINY) for seed in seeds]


def trained(steps: int = 3, seed: int = 0, parts: Sequence[Example] | None = None) -> dict[str, Tensor]:
    parts = good([0]) if parts is None else parts
    return weights(finished([shown([0, 1])], parts, seed, steps)[1])


def finished(
    groups: Sequence[Sequence[Example]], parts: Sequence[Example], seed: int = 0, steps: int = LEARNT.steps
) -> tuple[list[Progress], UNet]:
    training, reports = train_detector(groups, parts, replace(LEARNT, steps=steps), seed, CPU), []
    while True:
        try:
            reports.append(next(training))
        except StopIteration as end:
            return reports, end.value


def weights(net: UNet) -> dict[str, Tensor]:
    return net.state_dict()


def test_a_detector_that_diverges_is_no_result() -> None:
    training = train_detector([shown([0])], good([0]), replace(LEARNT, lr=1e30), 0, CPU)
    with pytest.raises(DivergedError, match=r"(loss was|weights were).*: evaluate with another profile"):
        list(training)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_an_easy_defect_is_found_on_held_out_photographs() -> None:
    reports, net = finished([shown([0, 1, 2])], good([0, 1, 2]))
    held_out = shown([10, 11, 12, 13]) + good([10, 11])
    maps = list(predict(net, [example.image for example in held_out]))
    scores = [image_score(each) for each in maps]
    metrics = measure(maps, [each.mask for each in held_out], scores, [bool(each.mask.any()) for each in held_out])
    assert (metrics["pixel_ap"] or 0) > 0.8
    assert metrics["image_ap"] == 1.0
    assert (reports[-1].completed, reports[-1].total) == (LEARNT.steps, LEARNT.steps)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    torch.manual_seed(5)
    once = trained()
    torch.manual_seed(6)
    assert same(once, trained())
    assert not same(once, trained(seed=1))


def test_training_leaves_the_programs_random_numbers_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    trained(steps=1)
    assert torch.equal(torch.rand(1), expected)


def test_good_parts_are_learned_from_and_may_be_missing() -> None:
    assert not same(trained(), trained(parts=[]))


def test_before_training_nearly_nothing_is_defective() -> None:
    torch.manual_seed(0)
    net = UNet((8, 16), 2).eval()
    (found,) = predict(net, [drawn_normal(0).image])
    assert found.mean() == pytest.approx(PRIOR, abs=0.03)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(48, 40), (47, 33), (5, 61), (1, 1)])
def test_a_prediction_has_the_photographs_size(size: tuple[int, int], stride: int) -> None:
    net = UNet((4, 8, 8), stride).eval()
    (found,) = predict(net, [np.zeros((*size, 3), np.uint8)])
    assert found.shape == size
    assert ((found >= 0) & (found <= 1)).all()


def test_photographs_are_predicted_together_as_each_alone_and_in_order() -> None:
    torch.manual_seed(0)
    net = UNet((4, 8, 8), 2).eval()
    images = [drawn_normal(seed, *size).image for seed, size in enumerate([(48, 40)] * 3 + [(33, 47)] + [(48, 40)] * 2)]
    together = list(predict(net, images))
    assert [found.shape for found in together] == [image.shape[:2] for image in images]
    for image, found in zip(images, together, strict=True):
        np.testing.assert_allclose(found, next(predict(net, [image])), atol=1e-6)
    assert list(predict(net, [])) == []


def test_photograph_and_mask_are_resized_together() -> None:
    image, mask = np.zeros((100, 200, 3), np.uint8), np.zeros((100, 200), np.bool_)
    mask[20:60, 120:160] = True
    image[mask] = 255
    example = prepare_example(image, mask, TINY)
    assert example.image.shape == (32, 64, 3)
    assert example.mask.shape == (32, 64)
    assert (example.mask == (example.image[..., 0] >= 255 * COVERED)).mean() > 0.98
    assert prepare_example(image, mask, replace(TINY, square=True)).mask.shape == (64, 64)


def test_small_photographs_are_not_enlarged() -> None:
    pair = drawn_pair(0)
    example = prepare_example(pair.image, pair.mask, TINY)
    assert example.image is pair.image
    assert example.mask is pair.mask


def test_a_thin_mask_does_not_vanish() -> None:
    mask = np.zeros((640, 640), np.bool_)
    mask[300, 50:600] = True
    small = prepare_example(np.zeros((640, 640, 3), np.uint8), mask, TINY).mask
    assert small.sum() == pytest.approx(55, abs=2)
    assert np.flatnonzero(small.any(1)).tolist() == [30]


def test_a_good_part_stays_without_defect_when_it_is_resized() -> None:
    assert not prepare_example(np.full((640, 640, 3), 9, np.uint8), None, TINY).mask.any()


def test_a_score_is_the_greatest_local_mean() -> None:
    found = np.random.default_rng(0).random((40, 50), np.float32)
    half = SCORE_FILTER // 2
    padded = np.pad(found, half)
    means = np.lib.stride_tricks.sliding_window_view(padded, (SCORE_FILTER, SCORE_FILTER)).mean((2, 3))
    assert image_score(found) == pytest.approx(means.max(), abs=1e-5)


def test_the_loss_is_small_for_the_right_answer_alone() -> None:
    target = torch.zeros(2, 1, 8, 8)
    target[0, :, 2:5, 2:5] = 1
    right = (2 * target - 1) * 20
    assert detection_loss(right, target).item() == pytest.approx(0, abs=1e-3)
    assert detection_loss(-right, target).item() > 1
    nothing = torch.zeros_like(target)
    assert detection_loss(torch.full_like(target, -20.0), nothing).item() == pytest.approx(0, abs=1e-6)
