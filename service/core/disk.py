"""Recognises a full disk."""

from __future__ import annotations

import errno

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})


def disk_is_full(error: BaseException) -> bool:
    """Say whether an error means that the disk, or its quota, is full.

    safetensors raises an error of its own for it, which names the operating system's only in its text.
    """
    if isinstance(error, OSError):
        return error.errno in NO_SPACE
    return any(f"(os error {number})" in str(error) for number in NO_SPACE)
