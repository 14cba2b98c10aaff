"""Names: the ids of records, and the keys of their objects in the store.

An id sorts by the time it was made, and tells its kind by its prefix. Every object of a record lies under
`prefix(id)`; nothing that a client sends becomes part of a key.
"""

from __future__ import annotations

import re
import secrets
import time
from enum import StrEnum

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32, whose order is that of the numbers
_LENGTH = 26
_RANDOM_BITS = 80  # beside 48 bits of milliseconds, as in a ULID


class Kind(StrEnum):
    """What a record is about."""

    ADAPTER = "adapter"
    JOB = "job"


class Upload(StrEnum):
    """What an uploaded file is for; also the name of its folder."""

    IMAGES = "images"
    MASKS = "masks"
    NORMALS = "normals"


_PREFIXES = {Kind.ADAPTER: "adp", Kind.JOB: "job"}
_ID = re.compile(rf"(adp|job)_[{_ALPHABET}]{{{_LENGTH}}}")


def new_id(kind: Kind) -> str:
    """A new id, greater than those made in earlier milliseconds."""
    number = (time.time_ns() // 1_000_000 << _RANDOM_BITS) | secrets.randbits(_RANDOM_BITS)
    digits = (_ALPHABET[number >> 5 * place & 31] for place in reversed(range(_LENGTH)))
    return f"{_PREFIXES[kind]}_{''.join(digits)}"


def kind_of(record: str) -> Kind | None:
    """The kind of an id; None for what cannot be one."""
    if _ID.fullmatch(record) is None:
        return None
    return Kind.ADAPTER if record.startswith(_PREFIXES[Kind.ADAPTER]) else Kind.JOB


def prefix(record: str) -> str:
    """Where all objects of a record lie.

    Raises:
        ValueError: for what is no id; an empty prefix would be everyone's.
    """
    kind = kind_of(record)
    if kind is None:
        raise ValueError(f"{record!r} is not the id of a record")
    return f"{kind}s/{record}/"


def upload(adapter: str, what: Upload, number: int) -> str:
    return f"{prefix(adapter)}inputs/{what}/{number:03d}.png"


def inputs(adapter: str) -> str:
    """The list of an adapter's uploads, written after them: while it is missing, they are not complete."""
    return f"{prefix(adapter)}inputs.json"


def checkpoint(adapter: str, step: int, owner: str, file: str = "") -> str:
    """A file of a checkpoint that an attempt has made, or the folder of them all."""
    return f"{prefix(adapter)}checkpoints/{step:07d}-{owner}/{file}"


def artifact(adapter: str, file: str = "") -> str:
    """A file of the finished adapter, or the folder of them all."""
    return f"{prefix(adapter)}artifact/{file}"


def sample(adapter: str, step: int) -> str:
    return f"{prefix(adapter)}samples/{step:07d}.png"


def block(job: str, number: int) -> str:
    return f"{prefix(job)}blocks/{number:06d}.zip"


def results(job: str, owner: str = "") -> str:
    """The folder of what an attempt has made, or of what all have: the record tells whose counts."""
    return f"{prefix(job)}results/{owner}/" if owner else f"{prefix(job)}results/"


def dataset(job: str, owner: str) -> str:
    return f"{results(job, owner)}dataset.zip"


def preview(job: str, owner: str) -> str:
    return f"{results(job, owner)}preview.png"
