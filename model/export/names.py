"""Makes folder names and labels from the user's names of object and defect."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

MAX_BYTES = 80
"""File systems allow 255 bytes per name; shorter names also fit into Windows' 260 characters per path."""

RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])", re.IGNORECASE)
"""Device names that Windows refuses as folders, with or without a suffix."""


def folder_name(text: str, fallback: str) -> str:
    """Make a folder name that is valid on every file system: letters and digits of any script, `-`, `_`.

    >>> folder_name("metal nut / M8", "object")
    'metal_nut_M8'
    """
    name = re.sub(r"[^\w-]+", "_", unicodedata.normalize("NFKC", text)).strip("_-")
    name = name.encode()[:MAX_BYTES].decode(errors="ignore").rstrip("_-")
    if not name:
        return fallback
    return f"{name}_" if RESERVED.fullmatch(name) else name


def labels(names: Sequence[str]) -> list[str]:
    """Make labels of defect types; one that another already has gets its number behind it."""
    found: list[str] = []
    for number, name in enumerate(names, start=1):
        one = label(name, "defect")
        found.append(one if one not in found else f"{one} {number}")
    return found


def label(text: str, fallback: str) -> str:
    """Put the text on one line without unprintable characters, for class names and captions."""
    return "".join(char for char in " ".join(text.split()) if char.isprintable()) or fallback
