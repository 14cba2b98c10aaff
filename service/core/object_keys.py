"""Names: the ids of records, and the keys of their objects in the store.

An id sorts by the time it was made, and tells its kind by its prefix. Every object of a record lies under
`prefix(id)`; nothing that a client sends becomes part of a key.

What a worker stores has its owner in its key, the name of this one attempt: a worker that stalled in the middle of an
upload, and goes on when another has finished, writes beside what counts and never over it.
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


def uploads(adapter: str) -> str:
    """What the keys of an adapter's uploads and of their list begin with."""
    return f"{prefix(adapter)}inputs"


def upload(adapter: str, what: Upload, number: int) -> str:
    return f"{uploads(adapter)}/{what}/{number:03d}.png"


def inputs(adapter: str) -> str:
    """The list of an adapter's uploads, written after them: while it is missing, they are not complete."""
    return f"{uploads(adapter)}.json"


def checkpoint(adapter: str, step: int, owner: str, file: str = "") -> str:
    """A file of a checkpoint that an attempt has made, or the folder of them all."""
    return f"{prefix(adapter)}checkpoints/{step:07d}-{owner}/{file}"


def artifact(adapter: str, owner: str = "") -> str:
    """The folder of the adapter that an attempt has finished, or of what all have: the record tells whose counts."""
    return f"{prefix(adapter)}artifact/{owner}/" if owner else f"{prefix(adapter)}artifact/"


def samples(adapter: str) -> str:
    return f"{prefix(adapter)}samples/"


def sample(adapter: str, step: int, owner: str) -> str:
    return f"{samples(adapter)}{step:07d}-{owner}.png"


def block(job: str, number: int, owner: str) -> str:
    """Candidates that a worker has made; the job's blocks tell whose counts."""
    return f"{prefix(job)}blocks/{number:06d}-{owner}.zip"


def verdict(job: str, number: int, owner: str) -> str:
    """What a judge has accepted of a block; the job's blocks tell whose verdict counts."""
    return f"{prefix(job)}blocks/{number:06d}-{owner}.json"


def results(job: str, owner: str = "") -> str:
    """The folder of what an attempt has made, or of what all have: the record tells whose counts."""
    return f"{prefix(job)}results/{owner}/" if owner else f"{prefix(job)}results/"


def dataset(job: str, owner: str) -> str:
    return f"{results(job, owner)}dataset.zip"


def preview(job: str, owner: str) -> str:
    return f"{results(job, owner)}preview.png"
