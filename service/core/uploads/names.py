"""Matches masks with images by their file names, and makes file names fit to be shown."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

_WORDS = r"(?:ground[ _-]?truth|masks?|gt|labels?|seg(?:mentation)?s?|annotations?|anno|defects?)"
_SUFFIX = re.compile(rf"[ ._-]{_WORDS}(?:[ ._-]?\(?\d{{1,6}}\)?)?$")
_PREFIX = re.compile(rf"^{_WORDS}(?:[ ._-](?=.)|(?=\d))")
_EXTENSION = re.compile(r"\.(?:a?png|jpe?g?|jfif|bmp|dib|tiff?|webp)$")
_IMAGE_SUFFIX = re.compile(r"[ ._-](?:image|img|rgb|orig(?:inal)?|raw|photo|ome|leftimg8bit)$")
_IMAGE_PREFIX = re.compile(r"^(?:image|img)(?:[ ._-](?=.)|(?=\d))")
_SEPARATORS = " ._-("
_WORD = re.compile(r"[^\W\d_]{2,}")
_NO_KIND = re.compile(
    rf"{_WORDS}|regions?|inst(?:ances?)?|obj(?:ects?)?|poly(?:gons?)?|brush|parts?|tag|copy|png|jpe?g|bin(?:ary)?"
)

TASK_EXPORT = re.compile(r"^task-(\d+)-annotation-\d+(?:.*-tag-(.+)-\d+$)?")
"""Label Studio's names of brush masks, which do not contain the image's name, but the task's number and the label."""


@dataclass(frozen=True, slots=True)
class Kinds:
    """Masks and their images by stem, and what the masks' names say about the kind of defect.

    Attributes:
        suffixes: how the masks' names go on after their images'.
    """

    images: dict[str, str]
    kinds: frozenset[str]
    suffixes: frozenset[str] = frozenset()


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


def without_ending(name: str) -> str:
    """Return a file's name without the ending of a picture; other dots belong to the name."""
    return _EXTENSION.sub("", name)


def image_of(stem: str, images: Collection[str]) -> str | None:
    """Find the key of a mask's image; None if there is none."""
    aliases = _aliases(images)
    for core in cores(stem):
        if core in images:
            return core
        if len(found := aliases.get(core, [])) == 1:
            return found[0]
    return None


def _aliases(images: Iterable[str]) -> dict[str, list[str]]:
    """Map names without words for an image, such as `007` of `img_007_rgb`, to the stems that they may stand for."""
    aliases: dict[str, list[str]] = {}
    for key in images:
        shorter = _IMAGE_SUFFIX.sub("", key)
        for alias in {shorter, _IMAGE_PREFIX.sub("", key), _IMAGE_PREFIX.sub("", shorter)}:
            aliases.setdefault(alias, []).append(key)
    return aliases


def by_beginning(masks: Iterable[str], images: Collection[str], others: Collection[str]) -> Kinds | None:
    """Match masks whose names go on after those of their images, such as `007_scratch_0` for `007`.

    Such names are a guess, so all masks and all images must match, and no image's name may go on after another's.

    Args:
        masks: stems of masks without an image.
        images: stems of images without a mask.
        others: stems of all images.
    """
    aliases = _aliases(images) | {key: [key] for key in images}
    starts = {alias: keys[0] for alias, keys in aliases.items() if len(keys) == 1}
    if any(_continues(other, start) for start, key in starts.items() for other in others if other != key):
        return None
    found: dict[str, str] = {}
    kinds, suffixes = set(), set()
    for stem in masks:
        core = _PREFIX.sub("", stem)
        start = max((start for start in starts if _continues(core, start)), key=len, default=None)
        if start is None:
            return None
        found[stem] = starts[start]
        suffix = core[len(start) :]
        suffixes.add(suffix)
        kinds.add(" ".join(word for word in _WORD.findall(suffix) if not _NO_KIND.fullmatch(word)))
    if not found or {*found.values()} != {*images}:
        return None
    return Kinds(found, frozenset(kinds - {""}), frozenset(suffixes))


def by_task(masks: Collection[str], images: Collection[str]) -> Kinds | None:
    """Match Label Studio's masks with images in the order of their tasks, if there are as many."""
    named = {stem: match for stem in masks if (match := TASK_EXPORT.match(stem)) is not None}
    tasks = sorted({int(match[1]) for match in named.values()})
    if not named or len(named) < len(masks) or len(tasks) != len(images):
        return None
    image_of_task = dict(zip(tasks, sorted(images, key=_natural), strict=True))
    kinds = frozenset(match[2] for match in named.values() if match[2])
    return Kinds({stem: image_of_task[int(match[1])] for stem, match in named.items()}, kinds)


def _continues(name: str, start: str) -> bool:
    return name.startswith(start) and name[len(start) : len(start) + 1] in {*_SEPARATORS}


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def shown_name(name: str) -> str:
    """Make a file name fit for messages and new files: control characters and bytes that are not UTF-8 become `%C1`."""
    return "".join(_shown(sign) for sign in name)


def _shown(sign: str) -> str:
    if 0xDC80 <= ord(sign) <= 0xDCFF:
        return f"%{ord(sign) - 0xDC00:02X}"
    return f"%{ord(sign):02X}" if unicodedata.category(sign) == "Cc" else sign


def plain_name(name: str) -> str:
    """Make names equal that look alike: without invisible characters and outer spaces, with plain spaces and signs."""
    alike = unicodedata.normalize("NFKC", name)
    return "".join(sign for sign in alike if unicodedata.category(sign) != "Cf").strip()
