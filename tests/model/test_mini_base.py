"""The base that comes with the package: it is small, loads without a network, and its two branches agree."""

from __future__ import annotations

import pytest

from model.diffusion.base import Base, load_base, locate_base, missing_parts, read_card
from model.dualanodiff.config import resolve_config
from model.pretrain.evaluate import held_out_pairs, measure_alignment, measure_reconstruction, sample_base
from model.pretrain.presets import PRESETS


@pytest.fixture(scope="module")
def mini() -> Base:
    return load_base("mini")


def test_it_is_complete_and_small() -> None:
    folder = locate_base("mini")
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    assert missing_parts(folder) == []
    assert sum(sizes) <= 64 * 2**20
    assert max(sizes) <= 16 * 2**20


def test_its_card_says_where_it_comes_from() -> None:
    card = read_card(locate_base("mini"))
    assert {"trained_on", "seed", "seconds", "pairs_seen_by_unet", "measured", "few_shot", "sampling"} <= card.keys()
    assert {"reconstruction_procedural", "mask_iou_procedural", "alignment"} <= card["measured"].keys()


def test_it_recommends_what_its_preset_does_and_to_keep_its_mask_network(mini: Base) -> None:
    card = read_card(locate_base("mini"))
    assert (card["few_shot"], card["sampling"]) == (PRESETS["cpu"].few_shot, PRESETS["cpu"].sampling)
    assert resolve_config(mini, {}).mask_steps == 0


def test_it_reconstructs_pictures_it_never_saw(mini: Base) -> None:
    figures = measure_reconstruction(mini, held_out_pairs(8, mini.resolution))
    assert figures["psnr"] > 23
    assert figures["ssim"] > 0.6


def test_its_branches_draw_the_same_defect(mini: Base) -> None:
    images, parts, _ = sample_base(mini, 8)
    aligned = measure_alignment(images, parts)
    assert aligned["inside"] < 0.75 * aligned["inside_shuffled"]
