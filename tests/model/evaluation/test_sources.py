"""Pairs of a source: made once, kept on disk, and the same after an interruption."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model.diffusion.base import Base, load_base
from model.evaluation.rows import SOURCES, Source
from model.evaluation.sources import REJECTED_KEPT, MadePairs, Shot, Studio
from model.masks.networks import MaskNetworks
from service.core.errors import UsageError
from tests.support.tiny_data import drawn_normal, drawn_pair
from tests.support.tiny_evaluation import TINY

SHOT = Shot("tile", "blot", [drawn_pair(0), drawn_pair(1)], [drawn_normal(0), drawn_normal(1)])
PASTE = SOURCES["copy-paste"]
NOTHING_PASSES = {"min_area_ratio": 1e6, "max_area_ratio": 1e9}

OpenStudio = Callable[..., Studio]


@pytest.fixture(scope="module")
def base(tiny_base: Path) -> Base:
    return load_base(str(tiny_base))


@pytest.fixture
def studio(base: Base, tmp_path: Path) -> OpenStudio:
    def open_studio(folder: str = "seed-0", seed: int = 0, pairs: int = 3) -> Studio:
        return Studio(base, MaskNetworks(None, None), tmp_path / folder, replace(TINY, pairs=pairs), seed)

    return open_studio


def made(studio: Studio, source: Source = PASTE, shot: Shot = SHOT, name: str = "paste") -> MadePairs:
    making = studio.make(name, source, shot)
    while True:
        try:
            next(making)
        except StopIteration as end:
            found: MadePairs = end.value
            return found


def test_unchecked_pairs_are_as_many_as_asked_for_and_those_that_would_pass_are_counted(studio: OpenStudio) -> None:
    pairs = made(studio())
    assert len(pairs.pairs) == pairs.counts["accepted"] == pairs.counts["attempts"] == 3
    assert 0 <= pairs.counts["would_pass"] <= 3
    assert not pairs.rejected
    assert set(pairs.seconds) == {"train", "generate"}


def test_what_would_not_pass_is_taken_unchecked_but_counted(studio: OpenStudio) -> None:
    source = replace(PASTE, limits={"reject": False, **NOTHING_PASSES})
    counts = made(studio(), source).counts
    assert (counts["accepted"], counts["would_pass"]) == (3, 0)


def test_checked_pairs_end_with_the_attempts_and_some_rejected_ones_are_kept_with_reasons(studio: OpenStudio) -> None:
    pairs = made(studio(), replace(PASTE, limits=NOTHING_PASSES))
    assert pairs.pairs == []
    assert pairs.counts["attempts"] == TINY.attempts * 3
    assert "would_pass" not in pairs.counts
    assert 0 < len(pairs.rejected) <= REJECTED_KEPT
    assert all("mask_too_small" in each.reasons for each in pairs.rejected)
    assert all(each.candidate.image.shape[2] == 3 for each in pairs.rejected)


def test_the_same_seed_makes_the_same_pairs_and_another_others(studio: OpenStudio) -> None:
    digest = made(studio("one")).digest()
    assert made(studio("two")).digest() == digest
    assert made(studio("three", seed=1)).digest() != digest


def test_pairs_are_made_once(studio: OpenStudio) -> None:
    first = made(studio())
    again = list(studio().make("paste", PASTE, SHOT))
    assert again == []
    second = made(studio())
    assert second.digest() == first.digest()
    assert (second.counts, second.seconds) == (first.counts, first.seconds)


def test_an_interrupted_source_makes_the_pairs_that_it_would_have_made(studio: OpenStudio) -> None:
    whole = made(studio("whole"))
    making = studio("broken").make("paste", PASTE, SHOT)
    while not list((studio("broken").folder / "pairs").rglob("000000.json")):
        next(making)
    making.close()
    kept = studio("broken").folder / "pairs" / "paste" / "blot" / "000000.png"
    written = kept.stat().st_mtime_ns
    rest = made(studio("broken"))
    assert rest.digest() == whole.digest()
    assert rest.counts == whole.counts
    assert kept.stat().st_mtime_ns == written


def test_seconds_count_every_run_of_an_interrupted_source(studio: OpenStudio) -> None:
    making = studio().make("paste", PASTE, SHOT)
    while not list((studio().folder / "pairs").rglob("000001.json")):
        next(making)
    time.sleep(0.6)
    next(making)
    making.close()
    assert made(studio()).seconds["generate"] > 0.6
    assert list(studio().folder.rglob("*.seconds")) == []


def test_a_source_uses_another_ones_adapter(studio: OpenStudio) -> None:
    borrowed = replace(PASTE, adapter="paste")
    made(studio())
    made(studio(), borrowed, name="borrowed")
    assert [path.name for path in (studio().folder / "adapters").iterdir()] == ["paste"]


def test_a_finished_training_leaves_the_adapter_alone(studio: OpenStudio) -> None:
    made(studio())
    left = sorted(path.name for path in (studio().folder / "adapters" / "paste").iterdir())
    assert left == ["blot", "blot.json"]


def test_without_good_parts_a_paste_says_what_it_needs(studio: OpenStudio) -> None:
    with pytest.raises(UsageError, match="lays defects on normal images, but none were given"):
        made(studio(), shot=replace(SHOT, normals=[]))


def test_a_digest_tells_pairs_apart(studio: OpenStudio) -> None:
    pairs = made(studio())
    changed = replace(pairs.pairs[0], mask=~pairs.pairs[0].mask)
    assert replace(pairs, pairs=[changed, *pairs.pairs[1:]]).digest() != pairs.digest()
    copied = replace(pairs.pairs[0], image=np.array(pairs.pairs[0].image))
    assert replace(pairs, pairs=[copied, *pairs.pairs[1:]]).digest() == pairs.digest()
