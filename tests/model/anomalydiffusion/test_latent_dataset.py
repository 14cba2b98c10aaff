"""Crops to learn from: all show some of the defect, hairlines too."""

from __future__ import annotations

import numpy as np
import torch

from model.anomalydiffusion.latent_dataset import LatentDataset, cut_crops
from model.anomalydiffusion.loss import masked_loss
from model.runtime.seeding import step_generator
from model.types import Pair
from tests.support.tiny_anomaly import tiny_config
from tests.support.tiny_data import drawn_pair, surface


def hairline() -> Pair:
    mask = np.zeros((200, 300), np.bool_)
    mask[80, 20:280] = True
    image = surface(0, 200, 300)
    image[mask] = 0
    return Pair("hairline", image, mask)


def test_every_crop_shows_some_of_the_defect_at_its_own_scale() -> None:
    config = tiny_config(views=12)
    crops = cut_crops([hairline(), drawn_pair(1)], [0, 1], config)
    assert crops.types == [0] * 12 + [1] * 12
    assert all(image.shape == (32, 32, 3) for image in crops.images)
    assert all(mask.any() for mask in crops.masks)
    for image, mask in zip(crops.images[:12], crops.masks[:12], strict=True):
        assert mask.sum() <= 3 * 45  # a line, no band
        assert image[mask].mean() < image[~mask].mean() - 20


def test_crops_that_are_not_turned_are_the_photographs_own_pixels() -> None:
    pair = hairline()
    config = tiny_config(views=6, rotation=0.0, flip_horizontal=False, flip_vertical=False)
    windows = np.lib.stride_tricks.sliding_window_view(pair.image[..., 0], (32, 32))
    for image in cut_crops([pair], [0], config).images:
        assert (windows == image[..., 0]).all(axis=(2, 3)).any()


def test_crops_depend_on_seed_and_number_alone() -> None:
    pair = drawn_pair(0)
    few, many = (cut_crops([pair], [0], tiny_config(views=views)) for views in (2, 5))
    assert all(np.array_equal(one, other) for one, other in zip(few.images, many.images, strict=False))
    other = cut_crops([pair], [0], tiny_config(views=2, seed=1))
    assert not np.array_equal(other.images[0], few.images[0])


def dataset_of(types: list[int]) -> LatentDataset:
    count = len(types)
    return LatentDataset(torch.zeros(count, 4, 8, 8), torch.ones(count, 1, 32, 32), torch.tensor(types))


def test_every_type_is_drawn_as_often_as_another_however_few_crops_it_has() -> None:
    crops = dataset_of([2, 0, *[1] * 60, 2]).draw(3000, step_generator(0, 1))
    counts = torch.bincount(crops, minlength=63)
    assert all(900 < int(count) < 1100 for count in (counts[1], counts[[0, 62]].sum(), counts[2:62].sum()))
    assert counts[[0, 62]].min() > 400
    assert counts[2:62].min() > 0
    assert torch.equal(crops, dataset_of([2, 0, *[1] * 60, 2]).draw(3000, step_generator(0, 1)))


def test_of_a_single_type_all_crops_are_drawn_alike() -> None:
    crops = dataset_of([1] * 7).draw(5, step_generator(0, 1))
    assert torch.equal(crops, torch.randint(7, (5,), generator=step_generator(0, 1)))


def test_the_loss_sees_the_mask_alone_and_small_defects_as_much_as_large_ones() -> None:
    prediction, cells = torch.zeros(2, 4, 8, 8), torch.zeros(2, 1, 8, 8)
    cells[0, :, 0, 0] = 1
    cells[1, :, 2:8] = 1
    target = prediction + 2 * cells
    assert masked_loss(prediction, target, cells).item() == 4.0
    assert masked_loss(prediction, target + 9 * (1 - cells), cells).item() == 4.0
