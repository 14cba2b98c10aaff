"""Composites: exact masks on good parts, drawn once from the seed, in their share of every batch."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from model.data.crops import resize_share
from model.data.placement import NormalImage
from model.diffusion.base import SHIPPED, Base, load_base
from model.diffusion.prompts import embed, tokenize
from model.dualanodiff.composites import COMPOSITES_PER_GOOD, Made, make_composites, mixed_dataset
from model.dualanodiff.latent_dataset import Crops, LatentDataset, encode_crops, grey_cell
from model.dualanodiff.loss import training_loss
from model.dualanodiff.model import DualAnoDiffModel, build_model
from model.dualanodiff.prompts import NO_DEFECT
from model.masks.objects import Objects
from model.masks.u2net import U2Net, load_u2net
from model.runtime.progress import Progress
from model.runtime.seeding import step_generator
from model.training.checkpoint import list_checkpoints
from model.types import GREY, Pair, anomaly_part
from service.core.options.dualanodiff import TrainingConfig
from tests.support.tiny_data import drawn_normal, drawn_pair, last, surface, tiny_config, train

PAIRS = [drawn_pair(0, 48, 40), drawn_pair(1, 33, 90)]
NORMALS = [drawn_normal(0), drawn_normal(1, 40, 70)]
BORDER = 4


@pytest.fixture(scope="module")
def base(tiny_base: Path) -> Base:
    return load_base(str(tiny_base))


def value_of(job: Generator[Any, None, Any]) -> Any:
    while True:
        try:
            next(job)
        except StopIteration as end:
            return end.value


def made(config: TrainingConfig) -> Made:
    found: Made = value_of(make_composites(PAIRS, NORMALS, config, BORDER, None))
    return found


def built(base: Base, **chosen: Any) -> DualAnoDiffModel:
    return build_model(base, tiny_config(**{"composites": 6, **chosen}), "metal tile", "crack")


def weights(model: DualAnoDiffModel) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.trainable().items()}


def same(one: DualAnoDiffModel, other: DualAnoDiffModel) -> bool:
    return all(torch.equal(value, weights(other)[name]) for name, value in weights(one).items())


def flat(level: int) -> NormalImage:
    """A good part of one colour, of the size at which windows are not resized."""
    return NormalImage(f"flat{level}", np.full((32, 32, 3), level, np.uint8))


def test_the_mask_is_where_the_picture_differs_from_the_good_part() -> None:
    dark = Pair("dark", np.full((32, 32, 3), 200, np.uint8), np.zeros((32, 32), np.bool_))
    dark.mask[8:16, 10:22] = True
    dark.image[dark.mask] = 10
    job = make_composites([dark], [flat(180)], tiny_config(composites=40), BORDER, None)
    crops: Crops = value_of(job).composites
    for image, mask, part in zip(crops.images, crops.masks, crops.parts, strict=True):
        assert np.array_equal((image != 180).any(2), mask)
        assert np.array_equal(part, anomaly_part(image, mask))


def test_good_parts_alone_have_empty_masks_and_grey_parts() -> None:
    good = made(tiny_config(composites=10)).good
    assert len(good.images) == -(-10 // COMPOSITES_PER_GOOD)
    assert not np.any(good.masks)
    assert np.all(np.array(good.parts) == GREY)
    assert made(tiny_config(composites=10, prior_share=0.0)).good == Crops([], [], [])


def test_a_composite_is_drawn_from_seed_and_number_alone() -> None:
    few, many, other = (made(tiny_config(composites=count, seed=seed)) for count, seed in ((3, 0), (8, 0), (3, 1)))
    assert len({image.tobytes() for image in many.composites.images}) == 8
    for number in range(3):
        assert np.array_equal(few.composites.images[number], many.composites.images[number])
        assert not np.array_equal(few.composites.images[number], other.composites.images[number])


def test_defects_lie_on_the_product_where_one_is_found() -> None:
    net = load_u2net(SHIPPED / "mini" / "u2net" / "object.safetensors").eval()
    rows, columns = np.mgrid[:96, :96]
    picture = np.where(np.hypot(rows - 48, columns - 30)[..., None] < 24, surface(5, 96, 96), np.uint8(12))
    normals, config = [NormalImage("good", picture)], tiny_config(composites=40, view="whole")
    on_product = Objects(net, normals).in_normal("good")
    assert on_product is not None
    on_product = resize_share(on_product, 32) >= 0.5

    def astray(found_by: U2Net | None) -> float:
        job = make_composites([drawn_pair(0, 96, 96)], normals, config, BORDER, found_by)
        masks = value_of(job).composites.masks
        return float(np.mean([(mask & ~on_product).sum() / mask.sum() > 0.3 for mask in masks]))

    assert astray(None) > 0.3
    assert astray(net) < 0.1


def batches(dataset: LatentDataset, batch: int, count: int = 200) -> Tensor:
    """`(count, batch)` numbers of the views drawn."""
    return torch.stack([dataset.draw(batch, step_generator(0, number)) for number in range(count)])


@pytest.mark.parametrize("batch", [1, 4, 6])
@pytest.mark.parametrize(("real_share", "prior_share"), [(0.5, 0.125), (0.5, 0.0), (0.0, 0.25), (0.75, 0.25)])
def test_every_batch_has_its_share_of_every_kind(real_share: float, prior_share: float, batch: int) -> None:
    real, composites, good = 5, 9, 3 if prior_share else 0
    count = real + composites + good
    dataset = LatentDataset(torch.randn(2, count, 4, 2, 2), torch.zeros(count, 1, 2, 2), None)
    config = tiny_config(real_share=real_share, prior_share=prior_share)
    drawn = batches(mixed_dataset(dataset, good, composites, config), batch)
    edges = (0, real, real + composites, count)
    shares = (real_share, 1 - real_share - prior_share, prior_share)
    for low, high, share in zip(edges[:3], edges[1:], shares, strict=True):
        inside = (drawn >= low) & (drawn < high)
        assert float((inside.sum(1) - share * batch).abs().max()) < 1
        assert float(inside.float().mean()) == pytest.approx(share, abs=0.08)
        assert set(drawn[inside].tolist()) == (set(range(low, high)) if share else set())


def test_good_parts_are_learned_under_their_own_prompts_with_a_part_like_the_real_ones_grey(base: Base) -> None:
    model = built(base)
    composed = made(model.config)
    crops = composed.composites + composed.good
    dataset: LatentDataset = value_of(encode_crops(base, crops))
    mixed = mixed_dataset(dataset, len(composed.good.images), 3, model.config)
    assert mixed.prompts is not None
    assert mixed.prompts.tolist() == [0] * 6 + [1] * 2
    assert torch.equal(mixed.latents[1, 6:], grey_cell(dataset.latents[1, :3]).expand(2, 4, 8, 8))
    assert torch.equal(mixed.latents[0], dataset.latents[0])
    text = model.training_embeddings()
    torch.testing.assert_close(text[:, :1], model.prompt_embeddings())
    prompts = embed(model.text_encoder, tokenize(base.tokenizer, ["a vfx", NO_DEFECT]))
    torch.testing.assert_close(text[:, 1], prompts)
    loss = training_loss(model, mixed, step_generator(0, 0))
    assert torch.equal(loss, training_loss(model, mixed, step_generator(0, 0), text))
    assert not torch.equal(loss, training_loss(model, mixed, step_generator(0, 0), text[:, :1].expand(2, 2, -1, -1)))


def test_resumed_training_with_composites_equals_an_uninterrupted_one_bit_for_bit(base: Base, tmp_path: Path) -> None:
    whole, resumed = built(base, steps=6, checkpoint_every=3), built(base, steps=6, checkpoint_every=3)
    told = last(train(whole, PAIRS, tmp_path / "whole", normals=NORMALS))
    job = train(built(base, steps=6, checkpoint_every=3), PAIRS, tmp_path / "cut", normals=NORMALS)
    for item in job:
        if isinstance(item, Progress) and item.stage == "train" and item.completed:
            break
    assert list_checkpoints(tmp_path / "cut")
    assert last(train(resumed, PAIRS, tmp_path / "cut", normals=NORMALS)) == told
    assert same(resumed, whole)


def test_composites_and_their_good_parts_decide_what_is_learned(base: Base, tmp_path: Path) -> None:
    trained = []
    for number, (composites, normals) in enumerate(((6, NORMALS), (6, NORMALS[:1]), (0, NORMALS))):
        trained.append(built(base, composites=composites, steps=2))
        last(train(trained[-1], PAIRS, tmp_path / str(number), normals=normals))
    assert not same(trained[0], trained[1])
    assert not same(trained[0], trained[2])


def test_the_defect_of_a_pair_that_is_held_out_is_laid_nowhere(base: Base, tmp_path: Path) -> None:
    """Another defect in the pair that is held out changes its measure, and nothing of what is learned."""
    pairs = [drawn_pair(seed) for seed in range(5)]
    others = [drawn_pair(9), *pairs[1:]]
    trained = []
    for number, given in enumerate((pairs, others)):
        trained.append(built(base, views=1, composites=4, steps=501, batch=1, checkpoint_every=1000))
        job = train(trained[-1], given, tmp_path / str(number), normals=NORMALS)
        for item in job:
            if isinstance(item, Progress) and item.stage == "train":
                break
        job.close()
    assert same(trained[0], trained[1])
