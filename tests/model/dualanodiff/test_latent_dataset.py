from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest
import torch

from model.data.pixels import to_images, to_pixels
from model.diffusion.base import Base, load_base
from model.diffusion.vae import decode, encode, encode_batch
from model.dualanodiff.latent_dataset import LatentDataset, cut_crops, encode_crops
from model.runtime import switches
from model.runtime.progress import Progress
from model.runtime.switches import Switch
from model.types import GREY, MaskArray, Pair, anomaly_part
from tests.support.tiny_data import drawn_pair, surface, tiny_config

PAIRS = [drawn_pair(0, 48, 40), drawn_pair(1, 33, 90)]


@pytest.fixture(scope="module")
def base(tiny_base: Path) -> Base:
    return load_base(str(tiny_base))


def encoded(base: Base, products: list[MaskArray] | None = None) -> LatentDataset:
    return finished(encode_crops(base, cut_crops(PAIRS, tiny_config(), products)))


def left_halves(pairs: list[Pair]) -> list[MaskArray]:
    """Products that fill the left half of every photograph."""
    halves = [np.zeros_like(pair.mask) for pair in pairs]
    for half in halves:
        half[:, : half.shape[1] // 2] = True
    return halves


def finished(job: Generator[Progress, None, LatentDataset]) -> LatentDataset:
    while True:
        try:
            next(job)
        except StopIteration as end:
            dataset: LatentDataset = end.value
            return dataset


def test_all_levels_survive_as_pixels() -> None:
    image = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    pixels = to_pixels([image])
    assert (float(pixels.min()), float(pixels.max())) == (-1, 1)
    assert np.array_equal(to_images(pixels)[0], image)


def test_what_lies_beyond_the_range_is_clipped() -> None:
    bright, dark = to_images(torch.tensor([1.7, -2.0]).view(2, 1, 1, 1).expand(2, 3, 1, 1))
    assert bright.max() == bright.min() == 255
    assert dark.max() == dark.min() == 0


def test_latents_are_those_of_the_autoencoder_times_its_factor(base: Base) -> None:
    pixels = to_pixels([drawn_pair(0, 32, 32).image])
    mean = base.vae.encode(pixels).latent_dist.mean.detach()
    torch.testing.assert_close(encode(base.vae, pixels), mean * 0.18215)
    torch.testing.assert_close(decode(base.vae, mean * 0.18215), base.vae.decode(mean).sample.detach())


def test_a_view_is_drawn_from_seed_pair_and_number_alone() -> None:
    many = cut_crops(PAIRS, tiny_config(views=3))
    few = cut_crops(PAIRS[:1], tiny_config(views=2))
    other = cut_crops(PAIRS[:1], tiny_config(views=2, seed=1))
    assert len(many.images) == 6
    assert all(np.array_equal(few.images[view], many.images[view]) for view in range(2))
    assert not all(np.array_equal(few.images[view], other.images[view]) for view in range(2))


@pytest.mark.parametrize("view", ["whole", "window"])
def test_parts_show_the_defect_of_their_view_and_grey(view: str) -> None:
    crops = cut_crops(PAIRS, tiny_config(view=view))
    for image, mask, part in zip(crops.images, crops.masks, crops.parts, strict=True):
        assert image.shape == part.shape == (32, 32, 3)
        assert mask.shape == (32, 32)
        assert mask.any()
        assert np.array_equal(part, anomaly_part(image, mask))
        assert (part[~mask] == GREY).all()


def test_small_and_large_defects_of_a_photograph_have_their_crops() -> None:
    mask = np.zeros((300, 300), np.bool_)
    mask[20:80, 20:60] = mask[280:283, 280:285] = True
    pair = Pair("two sizes", surface(0, 300, 300), mask)
    crops = cut_crops([pair], tiny_config(view="window", views=6))
    areas = [float(crop.mean()) for crop in crops.masks]
    # The pit keeps its 15 pixels of 32 × 32 or less, the scratch fills a third of its window.
    assert min(areas) < 0.02
    assert max(areas) > 0.1


@pytest.mark.parametrize(("horizontal", "vertical", "kinds"), [(True, True, 4), (True, False, 2), (False, False, 1)])
def test_views_are_mirrored_only_where_that_is_allowed(*, horizontal: bool, vertical: bool, kinds: int) -> None:
    square = [drawn_pair(0, 32, 32)]
    crops = cut_crops(square, tiny_config(views=20, flip_horizontal=horizontal, flip_vertical=vertical))
    assert len({image.tobytes() for image in crops.images}) == kinds


def test_the_bank_holds_images_parts_and_defect_shares_in_step(base: Base) -> None:
    crops, dataset = cut_crops(PAIRS, tiny_config()), encoded(base)
    assert dataset.latents.shape == (2, 6, 4, 8, 8)
    assert dataset.backgrounds is None
    for branch, pictures in enumerate((crops.images, crops.parts)):
        torch.testing.assert_close(dataset.latents[branch], encode(base.vae, to_pixels(pictures)))
    areas = torch.tensor([mask.mean() for mask in crops.masks], dtype=torch.float32)
    torch.testing.assert_close(dataset.masks.mean((1, 2, 3)), areas)


def test_equal_views_are_encoded_once_and_keep_their_weight(base: Base) -> None:
    config = tiny_config(views=3, flip_horizontal=False, flip_vertical=False)
    pairs = [drawn_pair(0, 32, 32), drawn_pair(1, 90, 33)]
    crops = cut_crops(pairs, config, left_halves(pairs))
    job = encode_crops(base, crops)
    assert next(job).total == len({image.tobytes() for image in crops.images}) == 4
    dataset = finished(job)
    with switches.plain(Switch.DISTINCT_CROPS):
        plain = finished(encode_crops(base, crops))
    assert torch.equal(dataset.latents, plain.latents)
    assert torch.equal(dataset.backgrounds, plain.backgrounds)
    assert torch.equal(dataset.latents[0], encode(base.vae, to_pixels(crops.images)))
    assert dataset.backgrounds is not None
    assert dataset.latents.shape[1] == len(dataset.masks) == len(dataset.backgrounds) == 6


@pytest.mark.parametrize(("side", "pictures"), [(32, 16), (128, 16), (200, 6), (256, 4), (512, 2), (1024, 2)])
def test_large_pictures_are_encoded_few_at_a_time(side: int, pictures: int) -> None:
    assert encode_batch(side) == pictures


def test_backgrounds_are_encoded_where_products_are_known(base: Base) -> None:
    dataset, crops = encoded(base, left_halves(PAIRS)), cut_crops(PAIRS, tiny_config(), left_halves(PAIRS))
    assert dataset.backgrounds is not None
    assert crops.backgrounds is not None
    torch.testing.assert_close(dataset.backgrounds, encode(base.vae, to_pixels(crops.backgrounds)))
