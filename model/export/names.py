"""Folder names and labels from whatever the user called the object and the defect."""

from __future__ import annotations

import re
import unicodedata

MAX_BYTES = 80
"""File systems allow 255 bytes per name; short names also keep Windows' 260 characters per path in reach."""

RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])", re.IGNORECASE)
"""Device names that Windows refuses as folders, with or without a suffix."""


def folder_name(text: str, fallback: str) -> str:
    """A name that is one folder on every file system: letters and digits of any script, `-`, `_`; never a path.

    >>> folder_name("metal nut / M8", "object")
    'metal_nut_M8'
    """
    name = re.sub(r"[^\w-]+", "_", unicodedata.normalize("NFKC", text)).strip("_-")
    name = name.encode()[:MAX_BYTES].decode(errors="ignore").rstrip("_-")
    if not name:
        return fallback
    return f"{name}_" if RESERVED.fullmatch(name) else name


def label(text: str, fallback: str) -> str:
    """The text on one line without unprintable characters, for class names and captions."""
    return "".join(char for char in " ".join(text.split()) if char.isprintable()) or fallback
