"""Reads picture files whose headers Hypothesis has mutated; prints the memory that they took, in megabytes.

A process of its own, so that its greatest use of memory is that of the decoders: `python mutants.py EXAMPLES`.
"""

from __future__ import annotations

import io
import resource
import struct
import sys
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from service.core.errors import UsageError
from service.core.uploads.images import ImageLimits, read_image, read_mask

LIMITS = ImageLimits(max_pixels=10**6, max_total_pixels=10**6)

VALUES = st.sampled_from([0, 1, 2, 8, 2**12, 20_480, 2**15, 2**16 - 1, 2**31 - 1, 2**32 - 1]) | st.integers(
    0, 2**32 - 1
)
"""What a header may claim."""

PLAIN: list[tuple[str, dict[str, Any]]] = [
    ("PNG", {}),
    ("BMP", {}),
    ("JPEG", {}),
    ("JPEG", {"progressive": True}),
    ("TIFF", {}),
    ("TIFF", {"compression": "tiff_lzw"}),
    ("WEBP", {}),
    ("WEBP", {"lossless": True}),
]

# TIFF 6.0: size, bits, interpretation, orientation, samples, planes, predictor, the samples' kind.
_TAGS = {256: 40, 257: 24, 258: 8, 262: 1, 274: 1, 277: 1, 284: 1, 317: 1, 339: 1}
_COMPRESSIONS = [1, 5, 7, 8, 32_773]

SIDES = st.sampled_from([16, 64, 4096, 2**14, 2**15, 2**16, 2**32 - 1])
STRIPS = st.fixed_dictionaries({273: st.just(0), 278: SIDES, 279: st.just(0)})
TILES = st.fixed_dictionaries({322: SIDES, 323: SIDES, 324: st.just(0), 325: st.just(0)})


def look_at(data: bytes) -> None:
    for read in (read_image, read_mask):
        try:
            read(data, "a", LIMITS)
        except UsageError as error:
            assert error.problems  # noqa: PT017


def encoded(kind: str, options: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def tiff(tags: dict[int, int], data: bytes) -> bytes:
    """A TIFF with these tags, and those that tell where its only strip or tile lies."""
    place = 8 + 2 + 12 * len(tags) + 4
    own = {273: place, 324: place, 279: len(data), 325: len(data)}
    entries = [struct.pack("<HHII", tag, 4, 1, own.get(tag, value)) for tag, value in sorted(tags.items())]
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + bytes(4) + data


def mutated_tiffs(examples: int) -> Callable[[], None]:
    content = zlib.compress(bytes(2**20))

    @settings(max_examples=examples, deadline=None, database=None)
    @given(
        layout=STRIPS | TILES,
        compression=st.sampled_from(_COMPRESSIONS),
        changes=st.dictionaries(st.sampled_from([*_TAGS, 338]), VALUES, max_size=2),
        tail=st.binary(max_size=40),
    )
    def run(layout: dict[int, int], compression: int, changes: dict[int, int], tail: bytes) -> None:
        look_at(tiff({**_TAGS, **layout, 259: compression, **changes}, content + tail))

    return run


def mutated_words(plain: bytes, examples: int) -> Callable[[], None]:
    """Some numbers among the first bytes are others; a PNG's header has its checksum again."""
    places = st.integers(0, min(len(plain), 120) - 4)

    @settings(max_examples=examples, deadline=None, database=None)
    @given(st.lists(st.tuples(places, VALUES, st.sampled_from(["B", "<H", ">H", "<I", ">I"])), min_size=1, max_size=4))
    def run(changes: list[tuple[int, int, str]]) -> None:
        data = bytearray(plain)
        for place, value, form in changes:
            struct.pack_into(form, data, place, value % 256 ** struct.calcsize(form))
        if plain.startswith(b"\x89PNG"):
            struct.pack_into(">I", data, 29, zlib.crc32(data[12:29]))
        look_at(bytes(data))

    return run


def used() -> float:
    """The most memory that this process has held, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(examples: int) -> None:
    files = [encoded(kind, options) for kind, options in PLAIN]
    for file in files:
        look_at(file)
    look_at(tiff({**_TAGS, 259: 8, 273: 0, 278: 24, 279: 0}, zlib.compress(bytes(range(240)) * 4)))
    before = used()
    for run in (mutated_tiffs(examples), *(mutated_words(file, examples) for file in files)):
        run()
    sys.stdout.write(f"{used() - before:.1f}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]))
