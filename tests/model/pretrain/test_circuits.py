"""What the pictures of printed circuits, trays and coloured grain promise."""

from __future__ import annotations

import numpy as np
import pytest

from model.pretrain.procedural.circuits import layout
from model.pretrain.procedural.noise import chroma
from model.pretrain.procedural.objects import OBJECTS, tray
from model.pretrain.procedural.surfaces import SURFACES


@pytest.mark.parametrize("size", [32, 64, 128])
def test_every_circuit_shows_copper_and_base(size: int) -> None:
    rng = np.random.default_rng(3)
    shares = [float((layout(rng, size).copper > 0).mean()) for _ in range(40)]
    assert min(shares) > 0.03
    assert max(shares) < 0.95


def test_no_copper_lies_in_a_drilled_hole() -> None:
    rng = np.random.default_rng(4)
    for _ in range(20):
        board = layout(rng, 64)
        assert not ((board.copper > 0) & (board.holes > 0)).any()


def test_inspection_pictures_of_circuits_hold_two_tones() -> None:
    rng = np.random.default_rng(5)
    for _ in range(10):
        levels = np.round(SURFACES["printed circuit"](rng, 128).mean(axis=2), 2)
        _, counts = np.unique(levels, return_counts=True)
        assert np.sort(counts)[-2:].sum() > 0.6 * levels.size


def test_coloured_grain_leaves_the_brightness() -> None:
    grain = chroma(np.random.default_rng(6), 64, 2.0)
    assert np.abs(grain.mean(axis=2)).max() < 1e-5
    assert grain.std() > 0.3


def test_trays_come_in_every_brightness() -> None:
    rng = np.random.default_rng(7)
    means = [float(tray(rng, 32).mean()) for _ in range(60)]
    assert min(means) < 0.2
    assert max(means) > 0.8


def test_names_are_one_or_two_lower_case_words() -> None:
    for name in (*SURFACES, *OBJECTS):
        assert name == name.lower()
        assert 1 <= len(name.split()) <= 2
    assert not set(SURFACES) & set(OBJECTS)
