"""The user's choices for files that can be understood in several ways."""

from __future__ import annotations

import re
from dataclasses import dataclass

from service.core.errors import UsageError

Range = tuple[int, int]
"""The values that become black and white; values outside are black and white, too."""

_MOST = 65535


@dataclass(frozen=True, slots=True)
class Reading:
    """The user's choices; None derives them from the files.

    Attributes:
        brightness: values that become black and white in pictures with more than 8 bits per channel.
        mask_values: mask values that are the defect; a colour is 2**24 + its RGB number.
    """

    brightness: Range | None = None
    mask_values: frozenset[int] | None = None


def chosen_reading(brightness: str | None, mask_values: str | None) -> Reading:
    """Parse the user's choices.

    Args:
        brightness: `LOW:HIGH`, such as `0:16383`.
        mask_values: comma-separated numbers or colours, such as `1,2` or `#ff0000`.

    Raises:
        UsageError: a choice cannot be parsed.
    """
    problems = []
    span = re.fullmatch(r"\s*(\d{1,5})\s*:\s*(\d{1,5})\s*", brightness or "0:1")
    low, high = (int(span[1]), int(span[2])) if span else (0, 0)
    if not low < high <= _MOST:
        problems.append(
            f"brightness is {brightness!r}; it must be LOW:HIGH with 0 ≤ LOW < HIGH ≤ {_MOST}, such as 0:4095"
        )
    values = [_mask_value(word.strip()) for word in (mask_values or "").split(",") if word.strip()]
    if mask_values is not None and (not values or None in values):
        problems.append(f"mask values are {mask_values!r}; they must be numbers or colours, such as 1,2 or #ff0000")
    if problems:
        raise UsageError(problems)
    return Reading(
        (low, high) if brightness is not None else None,
        frozenset(value for value in values if value is not None) if mask_values is not None else None,
    )


COLOUR = 1 << 24
"""Added to a colour's number to distinguish it from grey levels and ids."""


def _mask_value(word: str) -> int | None:
    if re.fullmatch(r"#[0-9a-fA-F]{6}", word):
        return COLOUR + int(word[1:], 16)
    return int(word) if re.fullmatch(r"\d{1,5}", word) and 0 < int(word) <= _MOST else None


def shown(value: int) -> str:
    """Format a mask value as a user writes it."""
    return f"#{value - COLOUR:06x}" if value >= COLOUR else str(value)
