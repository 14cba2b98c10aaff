from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from model.data.pixels import to_pixels
from model.masks.extraction import attention_mask, iou, match_change, otsu, threshold_mask, tidy_mask, u2net_mask
from model.masks.finetune import adapt_u2net, deep_loss, degrade, move
from model.masks.u2net import PLAIN, U2Net, uniform
from model.pretrain.data import ViewShards
from model.pretrain.loop import LoopConfig
from model.pretrain.procedural.dataset import render_shard
from model.pretrain.segmentation import SegmentationConfig, Subject, build_segmentation, train_segmentation
from model.types import GREY, ImageArray, MaskArray, anomaly_part
from service.core.errors import UsageError

SIZE = 48


def disc(row: float, column: float, radius: float) -> MaskArray:
    rows, columns = np.mgrid[:SIZE, :SIZE]
    mask: MaskArray = np.hypot(rows - row, columns - column) <= radius
    return mask


def noisy_part(mask: MaskArray, colour: tuple[int, int, int], noise: float, seed: int = 0) -> ImageArray:
    part = anomaly_part(np.broadcast_to(np.uint8(colour), (*mask.shape, 3)), mask)
    disturbed = part + np.random.default_rng(seed).normal(0, noise, part.shape)
    return disturbed.round().clip(0, 255).astype(np.uint8)


SHAPES = [disc(20, 24, 9), disc(8, 30, 3), disc(0, 0, 12), disc(12, 12, 4) | disc(34, 36, 7)]
PARTS = [noisy_part(mask, (60, 40, 20), 4, seed) for seed, mask in enumerate(SHAPES)]


@pytest.mark.parametrize("mask", SHAPES)
@pytest.mark.parametrize("colour", [(20, 20, 20), (230, 220, 240)])
@pytest.mark.parametrize("noise", [0.0, 3.0])
def test_threshold_finds_a_plain_defect_exactly_through_noise(
    mask: MaskArray, colour: tuple[int, int, int], noise: float
) -> None:
    assert np.array_equal(threshold_mask(noisy_part(mask, colour, noise)), mask)


def test_threshold_finds_a_defect_that_differs_in_one_channel() -> None:
    mask = disc(20, 24, 9)
    assert iou(threshold_mask(noisy_part(mask, (127, 127, 240), 5)), mask) > 0.95


@pytest.mark.parametrize("noise", [0.0, 1.0, 3.0, 6.0])
def test_threshold_finds_nothing_in_a_part_without_a_defect(noise: float) -> None:
    empty = np.zeros((SIZE, SIZE), dtype=bool)
    assert not threshold_mask(noisy_part(empty, (0, 0, 0), noise)).any()


def test_threshold_keeps_the_faint_side_of_a_defect_that_a_strong_side_proves() -> None:
    mask = disc(24, 24, 10)
    image = np.full((SIZE, SIZE, 3), GREY - 50, dtype=np.uint8)
    image[:, 24:] = GREY - 100
    assert np.array_equal(threshold_mask(anomaly_part(image, mask)), mask)


def test_otsu_separates_two_groups_and_gives_the_maximum_of_one() -> None:
    values = np.concatenate([np.linspace(0, 1, 900), np.linspace(9, 10, 20)])
    assert 1 <= otsu(values) < 9
    assert otsu(np.full(7, 3.0)) == 3.0


def test_attention_gives_the_bright_region_at_the_resolution_of_the_image() -> None:
    attention = np.zeros((8, 8))
    attention[2:5, 4:7] = 1
    mask = attention_mask(attention, (64, 96))
    exact = np.zeros((64, 96), dtype=bool)
    exact[16:40, 48:84] = True
    assert mask.shape == (64, 96)
    assert iou(mask, exact) > 0.85
    assert np.array_equal(mask, attention_mask(1000 * attention + 7, (64, 96)))


def test_flat_attention_gives_an_empty_mask() -> None:
    assert not attention_mask(np.full((8, 8), 0.125), (32, 32)).any()


def test_tidying_fills_holes_and_gaps_and_removes_specks() -> None:
    whole = disc(24, 24, 12)
    torn = whole & ~disc(24, 20, 3)
    torn[:, 30] = False
    torn[2, 2] = True
    tidy = tidy_mask(torn)
    assert iou(tidy, whole) > 0.98
    assert ndimage.label(tidy)[1] == 1


def test_tidying_leaves_the_inside_of_a_ring_and_an_empty_mask() -> None:
    ring = disc(24, 24, 20) & ~disc(24, 24, 18)
    assert not tidy_mask(ring)[24, 24]
    assert not tidy_mask(np.zeros((SIZE, SIZE), dtype=bool)).any()


@pytest.mark.parametrize("seed", range(6))
def test_what_is_tidy_has_no_specks_and_keeps_the_largest_component(seed: int) -> None:
    noise = np.random.default_rng(seed).normal(size=(SIZE, SIZE))
    rough = ndimage.gaussian_filter(noise, 1.5) > 0.15
    tidy = tidy_mask(rough)
    components, _ = ndimage.label(tidy, np.ones((3, 3)))
    sizes = np.bincount(components.ravel())[1:]
    assert sizes.min() >= 0.05 * sizes.max()
    before, _ = ndimage.label(rough, np.ones((3, 3)))
    largest = before == 1 + np.bincount(before.ravel())[1:].argmax()
    assert np.array_equal(tidy & largest, largest)


def changed_in(mask: MaskArray, level: int = 90) -> tuple[ImageArray, ImageArray]:
    """A picture that is darker in a mask, and its good part."""
    good = np.full((*mask.shape, 3), 180, np.uint8)
    image = good.copy()
    image[mask] = level
    return image, good


@pytest.mark.parametrize("radius", [5, 11])
def test_a_mask_ends_where_the_good_part_ends_having_changed(radius: int) -> None:
    """Whether the part showed too much of the defect or too little."""
    drawn = disc(20, 24, 8)
    assert iou(match_change(disc(20, 24, radius), *changed_in(drawn), 4), drawn) > 0.9


@pytest.mark.parametrize("width", [2, 3, 5])
@pytest.mark.parametrize("reach", [4, 8])
def test_a_line_that_was_found_stays_as_thin(width: int, reach: int) -> None:
    line = np.zeros((SIZE, SIZE), np.bool_)
    line[20 : 20 + width, 6:40] = True
    matched = match_change(line, *changed_in(line), reach)
    assert matched[line].all()
    assert matched.sum() <= 1.2 * line.sum()


def test_a_mask_follows_the_change_so_far_and_no_farther() -> None:
    mask, reach = disc(20, 24, 8), 4
    matched = match_change(mask, *changed_in(disc(20, 24, 8) | disc(20, 36, 8)), reach)
    distance = ndimage.distance_transform_edt(~mask)
    assert matched[mask].mean() > 0.95
    assert reach - 1 < distance[matched].max() <= reach


def test_the_inside_of_a_ring_is_not_filled_from_both_sides() -> None:
    ring = disc(24, 24, 20) & ~disc(24, 24, 14)
    matched = match_change(ring, *changed_in(disc(24, 24, 22) & ~disc(24, 24, 11)), 4)
    assert matched.sum() > ring.sum()
    assert not matched[24, 24]


def test_a_faint_piece_beside_a_strong_one_stays() -> None:
    strong, faint = disc(12, 12, 8), disc(34, 36, 4)
    image, good = changed_in(strong)
    image[faint] = 160
    assert match_change(strong | faint, image, good, 4)[faint].all()


def test_a_mask_over_another_defect_than_the_images_is_left_to_the_checks() -> None:
    mask = disc(20, 12, 8)
    assert np.array_equal(match_change(mask, *changed_in(disc(20, 24, 8)), 4), mask)
    speck = disc(20, 24, 1)
    assert np.array_equal(match_change(speck, *changed_in(disc(20, 24, 9)), 8), speck)


def test_noise_is_no_change_also_beside_a_defect() -> None:
    changed, unchanged = disc(12, 12, 8), disc(34, 36, 4)
    image, good = changed_in(changed)
    noise = np.random.default_rng(0).integers(-3, 4, image.shape)
    matched = match_change(changed | unchanged, (image + noise).astype(np.uint8), good, 4)
    assert np.array_equal(matched[24:, 26:], unchanged[24:, 26:])


@pytest.mark.parametrize("mask", [np.zeros((SIZE, SIZE), np.bool_), np.ones((SIZE, SIZE), np.bool_)])
def test_an_empty_and_a_full_mask_stay(mask: MaskArray) -> None:
    assert np.array_equal(match_change(mask, *changed_in(mask), 4), mask)


def test_iou_counts_pixels_and_calls_two_empty_masks_equal() -> None:
    first = np.array([[True, True, False]])
    assert iou(first, np.array([[False, True, True]])) == pytest.approx(1 / 3)
    assert iou(~first & first, np.zeros((1, 3), dtype=bool)) == 1


def test_a_moved_part_and_its_mask_stay_together() -> None:
    mask = torch.from_numpy(disc(20, 28, 9)).float()[None, None].repeat(8, 1, 1, 1)
    pixels, moved = move(mask.repeat(1, 3, 1, 1), mask, torch.Generator().manual_seed(0), outside="zeros")
    assert torch.equal((pixels[:, :1] > 0.5).float(), moved)
    assert len({tuple(one.flatten().tolist()) for one in moved}) > 4


def test_degrading_changes_pixels_a_little_and_keeps_their_range() -> None:
    pixels = torch.full((16, 3, SIZE, SIZE), 0.9)
    degraded = degrade(pixels, torch.Generator().manual_seed(0))
    assert 0 < (degraded - pixels).abs().mean() < 0.1
    assert degraded.abs().max() <= 1


@pytest.fixture(scope="module")
def taught() -> dict[str, torch.Tensor]:
    """A small network that has seen nothing but four dark parts."""
    torch.manual_seed(0)
    net = U2Net(uniform(4, 8), PLAIN)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    pixels, target = to_pixels(np.stack(PARTS)), torch.from_numpy(np.stack(SHAPES)).float()[:, None]
    for _ in range(50):
        loss = deep_loss(net(pixels), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.state_dict()


def small(state: dict[str, torch.Tensor]) -> U2Net:
    net = U2Net(uniform(4, 8), PLAIN).eval()
    net.load_state_dict(state)
    return net


def mean_iou(net: U2Net, parts: list[ImageArray]) -> float:
    return float(np.mean([iou(u2net_mask(net, part), mask) for part, mask in zip(parts, SHAPES, strict=True)]))


def test_a_small_network_learns_four_parts_and_sees_nothing_in_plain_grey(taught: dict[str, torch.Tensor]) -> None:
    net = small(taught)
    assert mean_iou(net, PARTS) > 0.9
    assert not u2net_mask(net, np.full((SIZE, SIZE, 3), GREY, dtype=np.uint8)).any()


def test_adapting_teaches_a_defect_the_network_missed(taught: dict[str, torch.Tensor]) -> None:
    net = small(taught)
    pale = [noisy_part(mask, (110, 180, 150), 3, seed) for seed, mask in enumerate(SHAPES)]
    before = mean_iou(net, pale)
    reports = list(adapt_u2net(net, pale, SHAPES, seed=1, steps=40, lr=5e-3))
    assert [report.completed for report in reports] == list(range(1, 41))
    assert before < 0.2
    assert mean_iou(net, pale) > 0.6


def test_adapting_depends_on_the_seed_alone() -> None:
    def adapted(seed: int) -> list[float | None]:
        torch.manual_seed(0)
        net = U2Net(uniform(2, 4), PLAIN).eval()
        return [report.loss for report in adapt_u2net(net, PARTS, SHAPES, seed=seed, steps=3)]

    assert adapted(1) == adapted(1) != adapted(2)


@pytest.mark.parametrize("masks", [SHAPES[:2], [mask[:40] for mask in SHAPES]])
def test_adapting_refuses_pairs_that_do_not_match(masks: list[MaskArray]) -> None:
    with pytest.raises(UsageError, match=r"\(48, 48\)"):
        next(adapt_u2net(U2Net(uniform(2, 4), PLAIN), PARTS, masks, seed=0))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> ViewShards:
    folder = tmp_path_factory.mktemp("views")
    render_shard(folder / "0.safetensors", 0, 8, 48, 32)
    return ViewShards(folder)


@pytest.mark.parametrize("subject", Subject)
def test_training_in_two_runs_equals_training_in_one(shards: ViewShards, subject: Subject, tmp_path: Path) -> None:
    config = SegmentationConfig(subject, widths=uniform(2, 4), batch=4)

    def train(folder: Path, stop: int) -> U2Net:
        net = build_segmentation(config)
        # A rate that does not depend on how many steps are planned.
        loop = LoopConfig(steps=stop, lr=1e-3, warmup=1, decay_share=0.0, checkpoint_every=2)
        *_, last = train_segmentation(net, shards, shards.shards[0], folder, config, loop)
        assert last.note.startswith("IoU on 16 held-out views")
        return net

    whole = train(tmp_path / "whole", 4).state_dict()
    train(tmp_path / "parts", 2)
    resumed = train(tmp_path / "parts", 4).state_dict()
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())
