"""Blind test of generated defects: real and generated windows on one sheet, in random order, for a reader to sort.

    python -m bench.blind_sheet DATA_FOLDER DATASET.zip --out DIR --seed 0     # DIR/sheet.png, DIR/key.json
    python -m bench.blind_sheet --out DIR --answers answers.json               # [3, 7, …]: taken for generated

Real windows come from held-out photographs. All are cut by one rule, and both kinds have the same sizes, so that
nothing but what they show tells them apart. In place of a dataset, a folder of pairs that `pairforge evaluate` made
does (`work/seed-0/pairs/<source>/<type>`). The reader sees the sheet and not the key.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage, stats

from model.evaluation.data import EvaluationData, read_evaluation_data
from model.evaluation.given import read_given_pairs, refuse_held_out
from model.generation.pair_store import STATE_FILE, PairStore
from model.types import Candidate, ImageArray, MaskArray
from service.core.errors import UsageError
from service.core.strict_json import to_json

SHEET_FILE, KEY_FILE = "sheet.png", "key.json"

WINDOWS = 20
"""Of each kind, shared by the defect types; fewer where there are not so many."""

MARGIN, LEAST_SIDE = 0.75, 48
"""Surroundings on each side of a defect, as a share of its longer side, and the least side of a window, pixels."""

TOUCHING = 5
"""Marked areas that are closer than twice as many pixels are one defect; the largest is shown."""

SHOWN, COLUMNS, GAP, LABEL = 160, 8, 8, 18
"""Side of a window on the sheet, windows in a row, space between them, and height of a number, pixels."""

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Picture:
    """A photograph or generated picture, `(H, W, 3)` uint8, with its mask `(H, W)` bool, not empty.

    `part` names the physical part that it shows, or that it was generated on.
    """

    name: str
    part: str
    image: ImageArray
    mask: MaskArray


@dataclass(frozen=True, slots=True)
class Compared:
    """What is shown of a defect type: photographs and generated pictures, at least one of each."""

    defect: str
    reals: list[Picture]
    made: list[Picture]


@dataclass(frozen=True, slots=True)
class Window:
    """A square of a picture, and whether it was generated; `side` is in pixels of the picture."""

    generated: bool
    name: str
    side: int
    pixels: ImageArray


@dataclass(frozen=True, slots=True)
class Score:
    """How a reader sorted a sheet: generated windows that passed for real, and real ones that were called generated."""

    passed: int
    generated: int
    accused: int
    real: int

    def __str__(self) -> str:
        right, total = self.generated - self.passed + self.real - self.accused, self.generated + self.real
        low, high = stats.binomtest(right, total).proportion_ci(CONFIDENCE)
        return (
            f"{self.passed} of {self.generated} generated windows passed for real\n"
            f"{self.accused} of {self.real} real windows were called generated\n"
            f"{right} of {total} are right: {right / total:.0%} ({CONFIDENCE:.0%} interval {low:.0%} to {high:.0%}; "
            "guessing is 50%)"
        )


def draw_windows(compared: Sequence[Compared], seed: int) -> list[Window]:
    """Cut as many windows of real pictures as of generated ones of each type, of the same sizes, in random order.

    The windows of both kinds are ranked by the size that each defect asks for, and the larger of each rank is cut from
    both.

    Args:
        compared: the defect types, at least one, which get equal shares of the sheet.
        seed: of the choice and the order.
    """
    rng = np.random.default_rng(seed)
    most = -(-WINDOWS // len(compared))
    windows = [window for each in compared for window in _paired(each, most, rng)]
    return [windows[number] for number in rng.permutation(len(windows))]


def _paired(compared: Compared, most: int, rng: np.random.Generator) -> Iterator[Window]:
    count = min(most, len(compared.reals), len(compared.made))
    chosen = [sorted(_drawn(each, count, rng), key=_wanted_side) for each in (compared.reals, compared.made)]
    for pair in zip(*chosen, strict=True):
        side = min(max(map(_wanted_side, pair)), *(min(each.mask.shape) for each in pair))
        for each, generated in zip(pair, (False, True), strict=True):
            yield Window(generated, each.name, side, _cut(each, side))


def draw_sheet(windows: Sequence[Window]) -> Image.Image:
    """Lay out windows in rows, numbered from 1."""
    rows = -(-len(windows) // COLUMNS)
    wide, high = SHOWN + GAP, SHOWN + LABEL + GAP
    sheet = Image.new("RGB", (COLUMNS * wide + GAP, rows * high + GAP), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for number, window in enumerate(windows):
        left, top = GAP + number % COLUMNS * wide, GAP + number // COLUMNS * high
        pen.text((left, top), str(number + 1), "black", font)
        shown = Image.fromarray(window.pixels).resize((SHOWN, SHOWN), Image.Resampling.BICUBIC)
        sheet.paste(shown, (left, top + LABEL))
    return sheet


def score(key: Sequence[bool], answers: Sequence[Any]) -> Score:
    """Compare a reader's answers with the key.

    Args:
        key: whether each window was generated.
        answers: numbers, from 1, of the windows that the reader took for generated.

    Raises:
        UsageError: an answer is no number of a window.
    """
    wrong = [each for each in answers if not isinstance(each, int) or not 1 <= each <= len(key)]
    if wrong:
        raise UsageError(f"answers are numbers from 1 to {len(key)}, not {', '.join(map(str, wrong))}")
    called = {each - 1 for each in answers}
    generated = {number for number, each in enumerate(key) if each}
    return Score(len(generated - called), len(generated), len(called - generated), len(key) - len(generated))


def read_pictures(data: Path, dataset: Path) -> list[Compared]:
    """Read the held-out photographs of a dataset's defect types, and its pictures at the photographs' scale.

    Args:
        data: folder of real photographs, as `pairforge evaluate` reads it.
        dataset: dataset, or folder of pairs whose name is the defect's.

    Returns:
        What to compare, type by type. Of the generated pictures, those that are as large as a photograph or a good part
        have its scale; others are scaled to the photographs' median longer side.

    Raises:
        UsageError: either cannot be read, the photographs do not show the defects, or the dataset knows held-out ones.
    """
    pairs = _read_pairs(dataset)
    found = read_evaluation_data(data, list(pairs))
    if dataset.is_file():
        refuse_held_out([dataset], found)
    compared = [_read_type(found, defect, made) for defect, made in pairs.items()]
    empty = [each.defect for each in compared if not each.made]
    if empty or not compared:
        raise UsageError(f"{dataset} holds no pairs with a defect{' of type ' if empty else ''}{', '.join(empty)}")
    return compared


def _read_type(found: EvaluationData, defect: str, pairs: Sequence[Candidate]) -> Compared:
    split = found.defects[defect]
    parts = enumerate(split.held_out_parts)
    reals = [Picture(pair.name, str(number), pair.image, pair.mask) for number, part in parts for pair in part]
    photographs = [each.image for each in [*split.train, *split.test]]
    known = {image.shape for image in [*photographs, *(normal.image for normal in found.normals_train)]}
    longer = float(np.median([max(image.shape[:2]) for image in photographs]))
    made = [
        Picture(f"candidate {pair.index}", pair.normal or f"{pair.index}", pair.image, pair.mask)
        for pair in pairs
        if pair.mask.any()
    ]
    return Compared(defect, reals, [each if each.image.shape in known else _scaled(each, longer) for each in made])


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw a sheet, or score answers to one."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.blind_sheet", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="?", type=Path, help="folder of real photographs with a split")
    parser.add_argument("dataset", nargs="?", type=Path, help="dataset of generated pairs, or a folder of pairs")
    parser.add_argument("--out", type=Path, required=True, help="folder of the sheet and its key")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of windows and their order")
    parser.add_argument("--answers", type=Path, help="a JSON list of the numbers that a reader took for generated")
    chosen = parser.parse_args(arguments)
    key = chosen.out / KEY_FILE
    if chosen.answers is not None:
        told = json.loads(key.read_text(encoding="utf-8"))["windows"]
        answers = json.loads(chosen.answers.read_text(encoding="utf-8"))
        sys.stdout.write(f"{score([each['generated'] for each in told], answers)}\n")
        return
    if chosen.data is None or chosen.dataset is None:
        parser.error("give a folder of photographs and a dataset, or --answers")
    compared = read_pictures(chosen.data, chosen.dataset)
    windows, defects = draw_windows(compared, chosen.seed), [each.defect for each in compared]
    chosen.out.mkdir(parents=True, exist_ok=True)
    draw_sheet(windows).save(chosen.out / SHEET_FILE, optimize=True)
    listed = [
        {"number": number, "generated": each.generated, "name": each.name, "side": each.side}
        for number, each in enumerate(windows, 1)
    ]
    facts = {"data": str(chosen.data), "dataset": str(chosen.dataset), "types": defects, "seed": chosen.seed}
    key.write_text(to_json({**facts, "windows": listed}, indent=1), encoding="utf-8")
    sys.stdout.write(f"{len(windows)} windows of {', '.join(defects)}: {chosen.out / SHEET_FILE}; the key is {key}\n")


def _read_pairs(dataset: Path) -> dict[str, list[Candidate]]:
    """Read pairs, by defect type."""
    if not dataset.is_dir():
        return {defect: given.pairs for defect, given in read_given_pairs([dataset]).items()}
    state = dataset / STATE_FILE
    if not state.is_file():
        raise UsageError(f"{dataset} holds no pairs")
    return {dataset.name: list(PairStore(dataset).pairs(json.loads(state.read_text(encoding="utf-8"))["accepted"]))}


def _scaled(picture: Picture, longer: float) -> Picture:
    """Give a picture another longer side, in pixels."""
    scale = longer / max(picture.mask.shape)
    height, width = (max(1, round(length * scale)) for length in picture.mask.shape)
    image = Image.fromarray(picture.image).resize((width, height), Image.Resampling.BICUBIC)
    mask = Image.fromarray(picture.mask).resize((width, height), Image.Resampling.NEAREST)
    return replace(picture, image=np.asarray(image), mask=np.asarray(mask))


def _drawn(pictures: Sequence[Picture], count: int, rng: np.random.Generator) -> list[Picture]:
    """Draw pictures, a second one of a part only when every part is drawn: one surface twice gives itself away."""
    shuffled = [pictures[number] for number in rng.permutation(len(pictures))]
    seen: Counter[str] = Counter()
    turns = []
    for picture in shuffled:
        turns.append(seen[picture.part])
        seen[picture.part] += 1
    return [shuffled[number] for number in np.argsort(turns, kind="stable")[:count]]


def _wanted_side(picture: Picture) -> int:
    top, left, bottom, right = _extent(picture.mask)
    return max(LEAST_SIDE, round((1 + 2 * MARGIN) * max(bottom - top, right - left)))


def _cut(picture: Picture, side: int) -> ImageArray:
    """Cut a square with the defect in the middle, as far as the picture allows."""
    height, width = picture.mask.shape
    top, left, bottom, right = _extent(picture.mask)
    above = int(np.clip((top + bottom - side) // 2, 0, height - side))
    beside = int(np.clip((left + right - side) // 2, 0, width - side))
    return picture.image[above : above + side, beside : beside + side]


def _extent(mask: MaskArray) -> tuple[int, int, int, int]:
    """Return top, left, bottom and right of the largest defect."""
    labels, _ = ndimage.label(ndimage.binary_dilation(mask, iterations=TOUCHING))
    largest = np.bincount(labels[mask]).argmax()
    rows, columns = np.nonzero((labels == largest) & mask)
    return int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1


if __name__ == "__main__":
    main()
