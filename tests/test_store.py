"""Pairs come back from disk as they were, and only to the request that they were made for."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from model.generation import Tally
from model.store import PairStore, store_beside
from model.types import Candidate, anomaly_part
from service.core.errors import UsageError
from tests.tiny_data import drawn_pair

REQUEST = {"adapter": {"steps": 3}, "seed": 1, "normals": [["good", "1234"]], "mask_method": "u2net"}


def candidate(number: int, **chosen: object) -> Candidate:
    pair = drawn_pair(number)
    return Candidate(3 * number, 2**62 + number, pair.image, pair.mask, anomaly_part(pair.image, pair.mask), **chosen)


@pytest.fixture
def store(tmp_path: Path) -> PairStore:
    return store_beside(tmp_path / "dataset.zip")


def test_pairs_and_tally_come_back_as_they_were(store: PairStore) -> None:
    tally = Tally()
    store.begin(REQUEST, tally)
    scores = {"area": 0.1 + 0.2, "tiny": 5e-324, "texture": math.inf, "contrast": 1 / 3}
    kept = [candidate(0, normal="gut é.png", window=(1, 2, 33, 34), scores=scores), candidate(1)]
    for number, one in enumerate(kept, start=1):
        tally.attempts, tally.accepted = 2 * number, number
        tally.rejected.update(["invisible"])
        store.add(number - 1, one)
        store.record(tally)
    left = Tally()
    PairStore(store.folder).begin(REQUEST, left)
    assert left == tally == Tally(4, 2, Counter(invisible=2))
    for one, other in zip(kept, store.pairs(2), strict=True):
        for name in ("index", "seed", "normal", "window", "scores"):
            assert getattr(one, name) == getattr(other, name)
        for name in ("image", "mask", "part"):
            assert np.array_equal(getattr(one, name), getattr(other, name))
            assert getattr(one, name).dtype == getattr(other, name).dtype


def test_a_pair_counts_once_the_tally_says_so(store: PairStore) -> None:
    tally = Tally()
    store.begin(REQUEST, tally)
    store.add(0, candidate(0))
    store.record(Tally(1, 1))
    # What a process leaves that ended while it wrote the second pair.
    (store.folder / "000001.png").write_bytes(b"half")
    store.begin(REQUEST, tally)
    assert tally == Tally(1, 1)
    store.add(1, candidate(1))
    store.record(Tally(2, 2))
    assert [one.index for one in store.pairs(2)] == [0, 3]


def test_another_request_is_refused_until_forced(store: PairStore) -> None:
    store.begin(REQUEST, Tally())
    store.add(0, candidate(0))
    store.record(Tally(1, 1))
    other = {**REQUEST, "seed": 2, "adapter": {"steps": 4}}
    with pytest.raises(UsageError, match="--force") as refused:
        store.begin(other, Tally())
    assert refused.value.problems == ["the adapter or its base changed", "seed was 1 and is 2 now"]
    tally = Tally(7, 7)
    store.begin(other, tally, force=True)
    assert tally == Tally()


def test_where_no_pair_was_accepted_another_request_begins_anew(store: PairStore) -> None:
    store.begin(REQUEST, Tally())
    store.record(Tally(5, 0, Counter(invisible=5)))
    tally = Tally()
    store.begin({**REQUEST, "seed": 2}, tally)
    assert tally == Tally()


def test_files_of_another_kind_are_never_removed(store: PairStore) -> None:
    store.folder.mkdir()
    (store.folder / "holiday.png").write_bytes(b"mine")
    with pytest.raises(UsageError, match="holds other files"):
        store.begin(REQUEST, Tally(), force=True)
    assert (store.folder / "holiday.png").read_bytes() == b"mine"


def test_a_damaged_pair_is_named(store: PairStore) -> None:
    store.begin(REQUEST, Tally())
    store.add(0, candidate(0))
    store.record(Tally(1, 1))
    (store.folder / "000000_mask.png").unlink()
    with pytest.raises(UsageError, match=r"is damaged.*000000_mask\.png"):
        list(store.pairs(1))
