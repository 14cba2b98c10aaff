"""Pairs come back from disk as they were, and only to the request that they were made for."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from model.generation.counts import Counts
from model.generation.pair_store import PairStore, store_beside
from model.types import Candidate, anomaly_part
from service.core.errors import UsageError
from service.core.strict_json import parse
from tests.support.tiny_data import drawn_pair

REQUEST = {"adapter": {"steps": 3}, "seed": 1, "normals": [["good", "1234"]], "mask_method": "u2net"}


def candidate(number: int, **chosen: object) -> Candidate:
    pair = drawn_pair(number)
    return Candidate(3 * number, 2**62 + number, pair.image, pair.mask, anomaly_part(pair.image, pair.mask), **chosen)


@pytest.fixture
def store(tmp_path: Path) -> PairStore:
    return store_beside(tmp_path / "dataset.zip")


def test_pairs_and_tally_come_back_as_they_were(store: PairStore) -> None:
    counts = Counts()
    store.begin(REQUEST, counts)
    scores = {"area": 0.1 + 0.2, "tiny": 5e-324, "contrast": 1 / 3}
    kept = [candidate(0, normal="gut é.png", window=(1, 2, 33, 34), scores=scores), candidate(1)]
    for number, one in enumerate(kept, start=1):
        counts.attempts, counts.accepted = 2 * number, number
        counts.rejected.update(["invisible"])
        store.add(number - 1, one)
        store.record(counts)
    left = Counts()
    PairStore(store.folder).begin(REQUEST, left)
    assert left == counts == Counts(4, 2, Counter(invisible=2))
    for one, other in zip(kept, store.pairs(2), strict=True):
        for name in ("index", "seed", "normal", "window", "scores"):
            assert getattr(one, name) == getattr(other, name)
        for name in ("image", "mask", "part"):
            assert np.array_equal(getattr(one, name), getattr(other, name))
            assert getattr(one, name).dtype == getattr(other, name).dtype


def test_a_score_that_is_no_number_is_kept_as_none_of_them(store: PairStore) -> None:
    store.begin(REQUEST, Counts())
    store.add(0, candidate(0, scores={"texture": math.inf, "contrast": 0.5}))
    written = (store.folder / "000000.json").read_text()
    assert parse(written)["scores"] == {"texture": None, "contrast": 0.5}
    (read,) = store.pairs(1)
    assert math.isnan(read.scores["texture"])


def test_a_pair_counts_once_the_tally_says_so(store: PairStore) -> None:
    counts = Counts()
    store.begin(REQUEST, counts)
    store.add(0, candidate(0))
    store.record(Counts(1, 1))
    # What a process leaves that ended while it wrote the second pair.
    (store.folder / "000001.png").write_bytes(b"half")
    store.begin(REQUEST, counts)
    assert counts == Counts(1, 1)
    store.add(1, candidate(1))
    store.record(Counts(2, 2))
    assert [one.index for one in store.pairs(2)] == [0, 3]


def test_another_request_is_refused_until_forced(store: PairStore) -> None:
    store.begin(REQUEST, Counts())
    store.add(0, candidate(0))
    store.record(Counts(1, 1))
    other = {**REQUEST, "seed": 2, "adapter": {"steps": 4}}
    with pytest.raises(UsageError, match="--force") as refused:
        store.begin(other, Counts())
    assert refused.value.problems == ["the adapter or its base changed", "seed was 1 and is now 2"]
    counts = Counts(7, 7)
    store.begin(other, counts, force=True)
    assert counts == Counts()


def test_where_no_pair_was_accepted_another_request_begins_anew(store: PairStore) -> None:
    store.begin(REQUEST, Counts())
    store.record(Counts(5, 0, Counter(invisible=5)))
    counts = Counts()
    store.begin({**REQUEST, "seed": 2}, counts)
    assert counts == Counts()


def test_files_of_another_kind_are_never_removed(store: PairStore) -> None:
    store.folder.mkdir()
    (store.folder / "holiday.png").write_bytes(b"mine")
    with pytest.raises(UsageError, match="contains other files"):
        store.begin(REQUEST, Counts(), force=True)
    assert (store.folder / "holiday.png").read_bytes() == b"mine"


def test_a_damaged_pair_is_named(store: PairStore) -> None:
    store.begin(REQUEST, Counts())
    store.add(0, candidate(0))
    store.record(Counts(1, 1))
    (store.folder / "000000_mask.png").unlink()
    with pytest.raises(UsageError, match=r"is damaged.*000000_mask\.png"):
        list(store.pairs(1))
