"""Draws pairs for the report: close up, with the defect's outline, beside the nearest real defect."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from model.evaluation.data import EvaluationData
from model.evaluation.sources import MadePairs
from model.types import Candidate, ImageArray, MaskArray
from service.core.atomic_write import write_text
from service.core.strict_json import to_json

SHOWN = 6
"""Pairs per source and defect type, spread over all of them, not chosen."""

SIDE = 160
"""Of a drawing, pixels."""

MARGIN = 1.0
"""Surroundings on each side of a defect, as a multiple of its longer side, at least `LEAST`."""
LEAST = 12

OUTLINE = (255, 60, 60)


@dataclass(frozen=True, slots=True)
class Shown:
    """A source's pairs of one defect type; `nearest` is the position of the real defect that each is most like."""

    made: MadePairs
    nearest: Sequence[int]


def write_pictures(data: EvaluationData, sources: Mapping[str, Mapping[str, Shown]], seed: int, folder: Path) -> None:
    """Write PNGs, and `pictures.json`, which lists them.

    Args:
        sources: source → defect type → its pairs.
        seed: of these pairs.
        folder: replaced if it exists.
    """
    if folder.is_dir():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    entries: list[dict[str, Any]] = []
    for source, by_type in sources.items():
        for defect, one in by_type.items():
            for number, real in enumerate(data.defects[defect].train):
                _save(folder / f"real-{defect}-{number}.png", _close_up(real.image, real.mask, outlined=True))
            pairs = list(zip(one.made.pairs, one.nearest, strict=True))
            drawn: list[tuple[Candidate, list[str], int | None]] = [
                (pair, [], nearest) for pair, nearest in pairs[:: max(1, len(pairs) // SHOWN)][:SHOWN]
            ]
            drawn += [(each.candidate, list(each.reasons), None) for each in one.made.rejected[:SHOWN]]
            for number, (candidate, reasons, nearest) in enumerate(drawn):
                name = f"{source}-{defect}-{number}.png"
                _save(folder / name, _close_up(candidate.image, candidate.mask))
                _save(folder / f"outline-{name}", _close_up(candidate.image, candidate.mask, outlined=True))
                entries.append(
                    {
                        "row": source,
                        "type": defect,
                        "seed": seed,
                        "image": name,
                        "mask": f"outline-{name}",
                        "nearest": None if nearest is None else f"real-{defect}-{nearest}.png",
                        "score": candidate.scores.get("score"),
                        "reasons": reasons,
                    }
                )
    write_text(folder / "pictures.json", to_json(entries))


def _close_up(image: ImageArray, mask: MaskArray, *, outlined: bool = False) -> Image.Image:
    """Cut a square around the defect, enlarge it, and draw the defect's outline if wanted."""
    height, width = mask.shape
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        rows, columns = np.array([0, height - 1]), np.array([0, width - 1])
    extent = int(max(np.ptp(rows), np.ptp(columns))) + 1
    side = min(height, width, extent + 2 * max(LEAST, round(MARGIN * extent)))
    top = int(np.clip((rows[0] + rows[-1] - side) // 2, 0, height - side))
    left = int(np.clip((columns[0] + columns[-1] - side) // 2, 0, width - side))
    box = slice(top, top + side), slice(left, left + side)
    cut = Image.fromarray(image[box]).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    if not outlined:
        return cut
    large = np.asarray(Image.fromarray(mask[box]).resize((SIDE, SIDE)))
    drawn = np.array(cut)
    drawn[large & ~ndimage.binary_erosion(large)] = OUTLINE
    return Image.fromarray(drawn)


def _save(path: Path, picture: Image.Image) -> None:
    picture.save(path, optimize=True)
