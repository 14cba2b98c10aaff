"""Matches masks with images by their file names, and makes file names fit to be shown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TypeVar

_File = TypeVar("_File")

_WORDS = r"(?:ground[ _-]?truth|masks?|gt|labels?|seg(?:mentation)?s?|annotations?|anno|defects?)"
_SUFFIX = re.compile(rf"[ ._-]{_WORDS}(?:[ ._-]?\d{{1,4}})?$")
_PREFIX = re.compile(rf"^{_WORDS}[ ._-](?=.)")
_EXTENSION = re.compile(r"\.(?:png|jpe?g|bmp|tiff?|webp)$")
_IMAGE_WORD = re.compile(r"(?:[ ._-](?:image|img|rgb|orig(?:inal)?|raw)$|^(?:image|img)[ ._-](?=.))")

TASK_EXPORT = re.compile(r"^task-\d+-annotation-\d+")
"""Label Studio's names of brush masks, which do not contain the image's name."""


def mask_suffix(stem: str) -> bool:
    """Whether a lower-case stem is named like a mask."""
    return bool(_SUFFIX.search(stem) or _PREFIX.search(stem))


def cores(stem: str) -> Iterator[str]:
    """Yield possible stems of a mask's image, the likeliest first; all in lower case."""
    yield stem
    for shorter in (_SUFFIX.sub("", stem), _PREFIX.sub("", stem)):
        if shorter and shorter != stem:
            yield shorter
            yield _EXTENSION.sub("", shorter)
    yield _EXTENSION.sub("", stem)


def image_of(stem: str, images: Mapping[str, _File]) -> str | None:
    """Find the key of a mask's image; None if there is none."""
    aliases: dict[str, list[str]] = {}
    for key in images:
        aliases.setdefault(_IMAGE_WORD.sub("", key), []).append(key)
    for core in cores(stem):
        if core in images:
            return core
        if len(found := aliases.get(core, [])) == 1:
            return found[0]
    return None


def shown_name(name: str) -> str:
    """Make a file name fit for messages and new files: bytes that are not UTF-8 are written as `%C1`."""
    return "".join(f"%{ord(sign) - 0xDC00:02X}" if 0xDC80 <= ord(sign) <= 0xDCFF else sign for sign in name)
