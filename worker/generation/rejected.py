"""Keeps small pictures of rejected candidates, so that people can see what the checks leave out, and why."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile

import numpy as np
from PIL import Image

from model.export.png import encode_png
from model.types import Candidate
from service.core.atomic_write import atomic_file
from service.core.strict_json import to_json

REJECTED_KEPT = 64
"""At most so many rejected candidates of a job are kept."""

SIDE = 256
"""Longer side of the pictures, pixels."""

LIST_FILE = "rejected.json"


def pack_rejected(path: Path, rejected: Iterable[tuple[Candidate, list[str]]]) -> int:
    """Write a zip of `00000012.png`, `00000012_mask.png` and a list; returns the number of candidates.

    Of a candidate that was generated on a good part, only the generated window is kept.
    """
    listed: list[dict[str, Any]] = []
    with atomic_file(path) as aside, ZipFile(aside, "w", ZIP_STORED) as file:
        for candidate, reasons in rejected:
            image, mask = Image.fromarray(candidate.image), Image.fromarray(candidate.mask.astype(np.uint8) * 255)
            if candidate.window is not None:
                image, mask = image.crop(candidate.window), mask.crop(candidate.window)
            image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
            name = f"{candidate.index:08d}"
            file.writestr(f"{name}.png", encode_png(image))
            file.writestr(f"{name}_mask.png", encode_png(mask.resize(image.size, Image.Resampling.BILINEAR)))
            listed.append({**candidate.record(), "window": None, "reasons": reasons})
        file.writestr(LIST_FILE, to_json(listed))
    return len(listed)
