"""`python -m bench.checks`: the share of bad pairs of each kind that the quality checks reject, on real photographs."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from bench.bad_pairs import KINDS, Material, carrier, held_out, make
from model.data.placement import NormalImage
from model.data.references import make_references
from model.quality.gate import QualityGate, Verdict
from model.types import ImageArray, MaskArray, Pair

RESOLUTION = 128
"""Side of the small base's windows, pixels."""

HELD, CARRIER = "held-out real pairs", "real defect on a good part"


@dataclass(slots=True)
class Tally:
    """How many candidates of one kind passed, and why the others did not."""

    accepted: int = 0
    of: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def count(self, verdict: Verdict) -> None:
        """Count one verdict."""
        self.of += 1
        self.accepted += verdict.accepted
        self.reasons.update(str(reason) for reason in verdict.reasons)


def read_materials(folder: Path, *, tested: bool) -> Iterator[tuple[str, list[Material]]]:
    """Yield each defect type of a folder with a `splits.json`, and its materials.

    Args:
        tested: whether held-out pairs are those of `test`. Otherwise they are other training photographs; where these
            show the same parts, each part is held out in turn.
    """
    splits = json.loads((folder / "splits.json").read_text(encoding="utf-8"))
    normals = [_normal(folder, stem) for stem in splits["normal"]["train"]]
    known = {normal.name: normal for normal in normals}
    good_stems = {path.stem for path in (folder / "normal" / "image").iterdir()}
    for defect, split in splits["defects"].items():
        rest = split.get("train_group_rest", []) + split.get("train_other_exposures", [])
        groups = split.get("groups", split.get("tiles"))
        folds = [(split["train"], split["test"])] if tested else _folds(split["train"], rest, groups)
        made = []
        for few_stems, held_stems in folds:
            few, few_places = make_references(_pairs(folder, defect, few_stems), "window", RESOLUTION, 0)
            held, places = make_references(_pairs(folder, defect, held_stems), "window", RESOLUTION, 0)
            before = {
                pair.name: (known.get(pair.name) or _normal(folder, pair.name), pair.image, pair.mask)
                for pair in _pairs(folder, defect, held_stems)
                if pair.name in good_stems
            }
            made.append(Material(few, few_places, held, places, normals, before))
        yield f"{folder.name}/{defect}", made


def _folds(
    train: Sequence[str], rest: Sequence[str], groups: Sequence[Sequence[str]] | None
) -> list[tuple[list[str], list[str]]]:
    if groups is None:
        return [(list(train), list(rest))]
    folds = []
    for group in groups:
        held = [stem for stem in group if stem in train or stem in rest]
        few = [stem for stem in train if stem not in group]
        if held and few:
            folds.append((few, held))
    return folds


def measure(materials: Sequence[Material], count: int, seed: int = 0) -> dict[str, Tally]:
    """Check bad pairs of every kind, undamaged ones, and held-out real ones.

    Args:
        count: candidates of each kind, together for all materials.
    """
    tallies = {name: Tally() for name in (HELD, CARRIER, *KINDS)}
    for material in materials:
        known = {normal.name: normal for normal, *_ in material.before.values()}
        known |= {normal.name: normal for normal in material.normals}
        gate = QualityGate(material.few, normals=list(known.values()))
        share = -(-count // len(materials))
        for candidate in held_out(material):
            tallies[HELD].count(gate.check(candidate))
        for name, kind in {CARRIER: carrier, **KINDS}.items():
            for candidate in make(kind, material, share, seed):
                tallies[name].count(gate.check(candidate))
    return tallies


def table(measured: dict[str, dict[str, Tally]]) -> str:
    """Lay out the shares rejected (bad pairs) and accepted (the first two rows) as a table."""
    lines = ["| | " + " | ".join(measured) + " |", "|---|" + "---:|" * len(measured)]
    for name in (HELD, CARRIER, *KINDS):
        cells = []
        for tallies in measured.values():
            tally = tallies[name]
            right = tally.accepted if name in {HELD, CARRIER} else tally.of - tally.accepted
            cells.append(f"{right / tally.of:.0%} of {tally.of}" if tally.of else "none")
        lines.append(f"| {name}, {'accepted' if name in {HELD, CARRIER} else 'rejected'} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.checks", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="folders of photographs with a splits.json")
    parser.add_argument("--count", type=int, default=60, help="pairs of each kind and defect type")
    parser.add_argument("--tested", action="store_true", help="hold out the photographs of `test`; never tune on these")
    parser.add_argument("--reasons", action="store_true", help="also say why pairs were rejected")
    chosen = parser.parse_args(arguments)
    measured = {
        name: measure(materials, chosen.count)
        for folder in chosen.folders
        for name, materials in read_materials(folder, tested=chosen.tested)
    }
    sys.stdout.write(table(measured))
    if chosen.reasons:
        for name, tallies in measured.items():
            for kind, tally in tallies.items():
                sys.stdout.write(f"{name}, {kind}: {dict(tally.reasons.most_common())}\n")


def _pairs(folder: Path, defect: str, stems: Sequence[str]) -> list[Pair]:
    pairs = [
        Pair(stem, _image(folder / defect / "image", stem), _mask(folder / defect / "mask", stem)) for stem in stems
    ]
    return [pair for pair in pairs if pair.mask.any()]


def _normal(folder: Path, stem: str) -> NormalImage:
    return NormalImage(stem, _image(folder / "normal" / "image", stem))


def _image(folder: Path, stem: str) -> ImageArray:
    (path,) = folder.glob(f"{stem}.*")
    with Image.open(path) as file:
        return np.asarray(file.convert("RGB"))


def _mask(folder: Path, stem: str) -> MaskArray:
    (path,) = folder.glob(f"{stem}.*")
    with Image.open(path) as file:
        return np.asarray(file.convert("L")) > 127


if __name__ == "__main__":
    main()
