"""How a user wants files to be understood, where they can be understood in several ways."""

from __future__ import annotations

import re
from dataclasses import dataclass

from service.core.errors import UsageError

Range = tuple[int, int]
"""The values that become black and white; below and above is black and white, too."""

_MOST = 65535


@dataclass(frozen=True, slots=True)
class Reading:
    """What is chosen; None lets the files decide.

    Attributes:
        brightness: of pictures with more than 8 bits per channel, the values that become black and white.
        mask_values: the values of masks that are the defect; a colour is 2**24 + its RGB number.
    """

    brightness: Range | None = None
    mask_values: frozenset[int] | None = None


def chosen_reading(brightness: str | None, mask_values: str | None) -> Reading:
    """The choices that a user wrote.

    Args:
        brightness: `LOW:HIGH`, such as `0:16383`.
        mask_values: numbers or colours with commas between, such as `1,2` or `#ff0000`.

    Raises:
        UsageError: it is none.
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
        problems.append(f"mask values are {mask_values!r}; give numbers or colours, such as 1,2 or #ff0000")
    if problems:
        raise UsageError(problems)
    return Reading(
        (low, high) if brightness is not None else None,
        frozenset(value for value in values if value is not None) if mask_values is not None else None,
    )


COLOUR = 1 << 24
"""Added to a colour's number, so that it is none of the grey levels or ids."""


def _mask_value(word: str) -> int | None:
    if re.fullmatch(r"#[0-9a-fA-F]{6}", word):
        return COLOUR + int(word[1:], 16)
    return int(word) if re.fullmatch(r"\d{1,5}", word) and 0 < int(word) <= _MOST else None


def shown(value: int) -> str:
    """A mask's value as a user writes it."""
    return f"#{value - COLOUR:06x}" if value >= COLOUR else str(value)
