from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest
import torch

from model.base import Base, load_base
from model.latents import LatentBank, cut_views, decode, encode, encode_batch, encode_views
from model.pixels import to_images, to_pixels
from model.progress import Progress
from model.types import GREY, anomaly_part
from model.u2net import U2Net
from tests.tiny_data import drawn_pair, tiny_config, tiny_u2net

PAIRS = [drawn_pair(0, 48, 40), drawn_pair(1, 33, 90)]


@pytest.fixture(scope="module")
def base(tiny_base: Path) -> Base:
    return load_base(str(tiny_base))


def encoded(base: Base, net: U2Net | None = None) -> LatentBank:
    return finished(encode_views(base, cut_views(PAIRS, tiny_config()), net))


def finished(job: Generator[Progress, None, LatentBank]) -> LatentBank:
    while True:
        try:
            next(job)
        except StopIteration as end:
            bank: LatentBank = end.value
            return bank


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
    many = cut_views(PAIRS, tiny_config(views=3))
    few = cut_views(PAIRS[:1], tiny_config(views=2))
    other = cut_views(PAIRS[:1], tiny_config(views=2, seed=1))
    assert len(many.images) == 6
    assert all(np.array_equal(few.images[view], many.images[view]) for view in range(2))
    assert not all(np.array_equal(few.images[view], other.images[view]) for view in range(2))


@pytest.mark.parametrize("view", ["whole", "window"])
def test_parts_show_the_defect_of_their_view_and_grey(view: str) -> None:
    views = cut_views(PAIRS, tiny_config(view=view))
    for image, mask, part in zip(views.images, views.masks, views.parts, strict=True):
        assert image.shape == part.shape == (32, 32, 3)
        assert mask.shape == (32, 32)
        assert mask.any()
        assert np.array_equal(part, anomaly_part(image, mask))
        assert (part[~mask] == GREY).all()


@pytest.mark.parametrize(("horizontal", "vertical", "kinds"), [(True, True, 4), (True, False, 2), (False, False, 1)])
def test_views_are_mirrored_only_where_that_is_allowed(*, horizontal: bool, vertical: bool, kinds: int) -> None:
    square = [drawn_pair(0, 32, 32)]
    views = cut_views(square, tiny_config(views=20, flip_horizontal=horizontal, flip_vertical=vertical))
    assert len({image.tobytes() for image in views.images}) == kinds


def test_the_bank_holds_images_parts_and_defect_shares_in_step(base: Base) -> None:
    views, bank = cut_views(PAIRS, tiny_config()), encoded(base)
    assert bank.latents.shape == (2, 6, 4, 8, 8)
    assert bank.backgrounds is None
    for branch, pictures in enumerate((views.images, views.parts)):
        torch.testing.assert_close(bank.latents[branch], encode(base.vae, to_pixels(pictures)))
    areas = torch.tensor([mask.mean() for mask in views.masks], dtype=torch.float32)
    torch.testing.assert_close(bank.masks.mean((1, 2, 3)), areas)


def test_equal_views_are_encoded_once_and_keep_their_weight(base: Base) -> None:
    config = tiny_config(views=3, flip_horizontal=False, flip_vertical=False)
    pairs = [drawn_pair(0, 32, 32), drawn_pair(1, 90, 33)]
    views = cut_views(pairs, config)
    job = encode_views(base, views, tiny_u2net())
    assert next(job).total == len({image.tobytes() for image in views.images}) == 4
    bank = finished(job)
    assert torch.equal(bank.latents[0], encode(base.vae, to_pixels(views.images)))
    assert bank.backgrounds is not None
    assert bank.latents.shape[1] == len(bank.masks) == len(bank.backgrounds) == 6


@pytest.mark.parametrize(("side", "pictures"), [(32, 16), (128, 16), (200, 6), (256, 4), (512, 2), (1024, 2)])
def test_large_pictures_are_encoded_few_at_a_time(side: int, pictures: int) -> None:
    assert encode_batch(side) == pictures


def test_backgrounds_are_encoded_where_a_network_finds_objects(base: Base) -> None:
    bank = encoded(base, tiny_u2net())
    assert bank.backgrounds is not None
    assert bank.backgrounds.shape == bank.latents[0].shape
