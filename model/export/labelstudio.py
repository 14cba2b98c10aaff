"""Writes Label Studio tasks with brush masks, and their labelling configuration.

Brush masks are packed by the `rle-pack` bit format (thi.ng/umbrella): 32 bits number of values, 5 bits word size − 1,
four times 4 bits of run sizes − 1; then per run one flag (1: one value repeated), 2 bits which run size, the length − 1
in that many bits, and the value. The values are the RGBA bytes of the whole canvas.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np

from model.export.formats import Entry, StoredNormal, StoredPair
from model.export.names import label
from model.types import MaskArray
from service.core.strict_json import to_json

CHANNELS = 4
WORD_BITS = 8
RUN_BITS = (3, 4, 8, 16)
LOCAL_FILES = "/data/local-files/?d="
"""URL prefix of files in the folder that Label Studio serves (`LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT`)."""


class LabelStudioLayout:
    """Writes `labelstudio/tasks.json` and `labelstudio/config.xml`; one brush region per pair."""

    def __init__(self, defect_name: str) -> None:
        self._defect = label(defect_name, "defect")
        self._tasks: list[str] = []

    def pair(self, pair: StoredPair) -> Iterator[Entry]:
        """Add the task of one pair."""
        height, width = pair.mask.shape
        region = {
            "id": f"mask{pair.stem}",
            "type": "brushlabels",
            "from_name": "tag",
            "to_name": "image",
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": {"format": "rle", "rle": brush_rle(pair.mask), "brushlabels": [self._defect]},
        }
        self._add_task(pair.image_path, [region])
        yield from ()

    def normal(self, normal: StoredNormal) -> Iterator[Entry]:
        """Add a task without annotations."""
        self._add_task(normal.image_path, [])
        yield from ()

    def close(self) -> Iterator[Entry]:
        """Yield both files."""
        tasks = ",\n".join(self._tasks)
        yield "labelstudio/tasks.json", f"[{tasks}]\n".encode()
        config = (
            '<View>\n  <Image name="image" value="$image" zoom="true"/>\n  <BrushLabels name="tag" toName="image">\n'
            f"    <Label value={quoteattr(self._defect)}/>\n  </BrushLabels>\n</View>\n"
        )
        yield "labelstudio/config.xml", config.encode()

    def _add_task(self, path: str, regions: list[dict[str, Any]]) -> None:
        task = {"data": {"image": LOCAL_FILES + path}, "annotations": [{"result": regions}]}
        self._tasks.append(to_json(task, ensure_ascii=False, separators=(",", ":")))


def brush_rle(mask: MaskArray) -> list[int]:
    """Pack an `(H, W)` bool mask, 255 in all four channels where it is set; returns bytes, 0–255."""
    values = mask.ravel()
    starts = np.concatenate([[0], np.flatnonzero(values[1:] != values[:-1]) + 1])
    lengths = np.diff(np.append(starts, values.size)) * CHANNELS
    bits = [f"{values.size * CHANNELS:032b}", f"{WORD_BITS - 1:05b}", *(f"{size - 1:04b}" for size in RUN_BITS)]
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        bits += _run(length, 255 if values[start] else 0)
    packed = np.packbits(np.frombuffer("".join(bits).encode("ascii"), np.uint8) - ord("0"))
    return [int(byte) for byte in packed]


def _run(length: int, value: int) -> Iterator[str]:
    longest = 1 << RUN_BITS[-1]
    for done in range(0, length, longest):
        part = min(length - done, longest) - 1
        choice = next(choice for choice, size in enumerate(RUN_BITS) if part < 1 << size)
        yield f"1{choice:02b}{part:0{RUN_BITS[choice]}b}{value:0{WORD_BITS}b}"
