"""Bad pairs are rejected and good ones pass: on the shipped samples, and on real photographs where they are at hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.bad_pairs import Material
from bench.checks import CARRIER, HELD, KINDS, Tally, measure, read_materials, table
from model.data.placement import NormalImage
from model.data.references import make_references
from model.pretrain.procedural.samples import NORMALS, PAIRS, sample_normal, sample_pair
from model.types import Pair

DATA = Path(__file__).parents[3] / "shared" / "data"


def accepted(tally: Tally) -> float:
    return tally.accepted / tally.of


@pytest.fixture(scope="module")
def samples() -> dict[str, Tally]:
    pairs = [Pair(f"plate{number}", *sample_pair(number)) for number in range(2 * PAIRS)]
    few, held = (make_references(some, "window", 128, 0) for some in (pairs[:PAIRS], pairs[PAIRS:]))
    normals = [NormalImage(f"good{number}", sample_normal(number)) for number in range(NORMALS)]
    return measure([Material(*few, *held, normals, {})], 12)


@pytest.mark.parametrize("kind", KINDS)
def test_bad_pairs_of_the_samples_are_rejected(samples: dict[str, Tally], kind: str) -> None:
    assert samples[kind].of > 0
    assert accepted(samples[kind]) <= 0.05


@pytest.mark.parametrize("kind", [HELD, CARRIER])
def test_good_pairs_of_the_samples_pass(samples: dict[str, Tally], kind: str) -> None:
    assert accepted(samples[kind]) >= 0.9


def test_the_table_names_every_kind(samples: dict[str, Tally]) -> None:
    text = table({"plate": samples})
    assert all(name in text for name in (HELD, CARRIER, *KINDS))


@pytest.mark.parametrize(("product", "defect"), [("magnetic-tile", "crack"), ("deeppcb", "copper")])
def test_bad_pairs_of_real_photographs_are_rejected(product: str, defect: str) -> None:
    """On a surface and on a circuit, held out by their parts, with photographs that are for training only."""
    folder = DATA / product
    if not (folder / "splits.json").is_file():
        pytest.skip(f"no photographs in {folder}")
    (materials,) = (made for name, made in read_materials(folder, tested=False) if name.endswith(defect))
    tallies = measure(materials[:2], 12)
    assert {name for name in KINDS if accepted(tallies[name]) > 0.05} == set()
    assert accepted(tallies[HELD]) >= 0.95
    assert accepted(tallies[CARRIER]) >= 0.9
