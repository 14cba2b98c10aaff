"""As many pairs together as memory has room for, and the same pairs where it has less."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.diffusion.base import load_base
from model.dualanodiff.adapter import DualAnoDiffAdapter
from model.dualanodiff.sampling.decode import DecodedPair
from model.dualanodiff.sampling.sampler import Sampler, prepare_sampling, sample_decoded
from model.runtime import switches
from model.runtime.cuda_memory import SHARE, BatchBudget, budget_for, fitting_pairs, measured_budget
from model.runtime.progress import Progress
from model.runtime.switches import Switch
from service.core.options.common import MaskMethod
from service.core.options.dualanodiff import SamplingConfig
from tests.support.tiny_data import tiny_adapter

CONFIG = SamplingConfig(steps=2, batch=4, mask_method=MaskMethod.THRESHOLD)
MB = 2**20


@pytest.fixture(scope="module")
def adapter(tiny_base: Path) -> DualAnoDiffAdapter:
    return tiny_adapter(load_base(str(tiny_base)))


@pytest.mark.parametrize(
    ("one", "two", "free", "most", "pairs"),
    [
        (100, 160, 1000, 64, 12),  # 100 + 11 × 60 = 760 ≤ 800
        (100, 160, 1000, 8, 8),
        (100, 160, 125, 8, 1),
        (100, 160, 10, 8, 1),
        (100, 100, 1000, 8, 8),
        (700, 1400, 1000, 8, 1),
    ],
)
def test_pairs_that_fit(one: int, two: int, free: int, most: int, pairs: int) -> None:
    assert fitting_pairs(one * MB, two * MB, free * MB, most) == pairs


def test_what_fits_takes_no_more_than_its_share() -> None:
    for free in range(300, 5000, 37):
        pairs = fitting_pairs(120, 170, free, 1000)
        taken = [120 + 50 * (count - 1) for count in (pairs, pairs + 1)]
        assert taken[0] <= max(SHARE * free, 120)
        assert taken[1] > int(SHARE * free)


def test_where_memory_is_not_told_there_is_room_for_all() -> None:
    def never(pairs: int) -> None:
        raise AssertionError(f"{pairs} pairs tried")

    assert measured_budget(torch.device("cpu"), [never], 16).pairs == 16


@pytest.mark.skipif(not torch.cuda.is_available(), reason="only a CUDA device says how much memory is free")
def test_unmeasured_memory_is_taken_to_fit_as_many_as_measured_memory_that_is_enough() -> None:
    device, works = torch.device("cuda"), [lambda pairs: torch.zeros(pairs, 2**20, device="cuda")]
    measured = measured_budget(device, works, 4)
    with switches.plain(Switch.MEASURED_MEMORY):
        assert measured_budget(device, [], 4).pairs == measured.pairs == 4


def test_what_is_taken_once_for_all_does_not_count() -> None:
    taken = iter([900 * MB, 100 * MB, 160 * MB])
    assert budget_for(lambda _: next(taken), lambda: 1000 * MB, 64) == 12


def test_there_is_room_for_one_where_two_do_not_fit() -> None:
    def measure(pairs: int) -> int:
        if pairs == 2:
            raise torch.OutOfMemoryError("no room for two")
        return 100 * MB

    assert budget_for(measure, lambda: 1000 * MB, 8) == 1


@pytest.mark.parametrize(
    ("budget", "batch", "parts"), [(8, 8, 8), (7, 8, 4), (3, 8, 2), (5, 7, 5), (64, 6, 6), (1, 8, 1)]
)
def test_a_batch_is_made_in_parts_of_one_size_where_that_wastes_little(budget: int, batch: int, parts: int) -> None:
    assert BatchBudget(budget).share(batch) == parts


def test_half_of_what_was_tried_is_left() -> None:
    budget = BatchBudget(7)
    for tried, left in ((7, 3), (3, 1)):
        budget.halve(tried)
        assert budget.pairs == left
    assert budget.halvings == 2


def with_memory_for(sampler: Sampler, rows: int) -> list[int]:
    """Let a sampler run out of memory with more rows at once; the numbers that were tried."""
    tried: list[int] = []

    def allocate(module: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
        tried.append(len(inputs[0]))
        if len(inputs[0]) > rows:
            raise torch.OutOfMemoryError(f"no room for {len(inputs[0])} latents")

    sampler.adapter.model.denoiser.unet.conv_in.register_forward_pre_hook(allocate)
    return tried


@pytest.mark.parametrize(("pairs", "start", "halvings"), [(3, 0, 1), (2, 3, 1), (1, 1, 2)])
def test_a_batch_that_does_not_fit_is_made_in_parts(
    adapter: DualAnoDiffAdapter, pairs: int, start: int, halvings: int
) -> None:
    short = prepare_sampling(adapter, CONFIG)
    tried = with_memory_for(short, 4 * pairs)
    items = list(sample_decoded(short, start, 8))
    notes = [item.note for item in items if isinstance(item, Progress) and item.note]
    decoded = [item for item in items if isinstance(item, DecodedPair)]
    assert short.budget.halvings == len(notes) == halvings
    assert f"from now on {short.budget.pairs} pairs" in notes[-1]
    # What did not fit once is not tried again.
    assert tried[halvings:] == [4 * short.budget.share(4)] * (len(tried) - halvings)
    whole = [
        item for item in sample_decoded(prepare_sampling(adapter, CONFIG), start, 8) if isinstance(item, DecodedPair)
    ]
    assert (
        [decoded_pair.index for decoded_pair in decoded]
        == [decoded_pair.index for decoded_pair in whole]
        == list(range(start, 8))
    )
    for one, other in zip(decoded, whole, strict=True):
        assert np.array_equal(one.image, other.image)
        assert np.array_equal(one.part, other.part)


def test_a_single_pair_that_does_not_fit_ends_it(adapter: DualAnoDiffAdapter) -> None:
    short = prepare_sampling(adapter, replace(CONFIG, batch=2))
    with_memory_for(short, 0)
    with pytest.raises(torch.OutOfMemoryError, match="no room for 4"):
        list(sample_decoded(short, 0, 2))


def test_a_work_that_does_not_fit_is_done_with_half_as_many() -> None:
    tried: list[int] = []

    def work(most: int) -> int:
        tried.append(most)
        if most > 2:
            raise torch.OutOfMemoryError
        return most

    budget = BatchBudget(9)
    assert budget.run(work) == 2
    assert budget.run(work) == 2
    assert tried == [9, 4, 2, 2]
    with pytest.raises(torch.OutOfMemoryError):
        BatchBudget(4).run(never_fits)


def never_fits(_: int) -> None:
    raise torch.OutOfMemoryError
