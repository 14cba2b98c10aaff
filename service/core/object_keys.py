"""Defines the ids of records and the keys of their objects in the store.

Ids sort by the time of their creation, and their prefix is their kind. Every object of a record lies under
`prefix(id)`; nothing that a client sends becomes part of a key.

The keys of a worker's objects contain their owner, the name of one attempt. A worker that stalls during an upload and
resumes after another has finished therefore never overwrites the valid result.
"""

from __future__ import annotations

import re
import secrets
import time
import unicodedata
from enum import StrEnum

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32, which sorts like the numbers
_LENGTH = 26
_NANOSECOND_BITS = 20  # after 48 bits of milliseconds, as in a ULID
_RANDOM_BITS = 60


class Kind(StrEnum):
    """Kind of a record."""

    ADAPTER = "adapter"
    JOB = "job"


class Upload(StrEnum):
    """Purpose of an uploaded file; also the name of its folder."""

    IMAGES = "images"
    MASKS = "masks"
    NORMALS = "normals"
    HELD_OUT_IMAGES = "held_out_images"
    HELD_OUT_MASKS = "held_out_masks"
    HELD_OUT_NORMALS = "held_out_normals"


TRAINING_UPLOADS = (Upload.IMAGES, Upload.MASKS, Upload.NORMALS)
HELD_OUT: dict[Upload, Upload] = {
    Upload.IMAGES: Upload.HELD_OUT_IMAGES,
    Upload.MASKS: Upload.HELD_OUT_MASKS,
    Upload.NORMALS: Upload.HELD_OUT_NORMALS,
}
"""Kind of a file that is trained on → the kind of its held-out counterpart, which no training sees."""


_PREFIXES = {Kind.ADAPTER: "adp", Kind.JOB: "job"}
_ID = re.compile(rf"(adp|job)_[{_ALPHABET}]{{{_LENGTH}}}")


def new_id(kind: Kind) -> str:
    """Make an id that is greater than those made in earlier nanoseconds."""
    milliseconds, nanoseconds = divmod(time.time_ns(), 1_000_000)
    number = (milliseconds << _NANOSECOND_BITS | nanoseconds) << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)
    digits = (_ALPHABET[number >> 5 * place & 31] for place in reversed(range(_LENGTH)))
    return f"{_PREFIXES[kind]}_{''.join(digits)}"


def kind_of(record: str) -> Kind | None:
    """Return the kind of an id; None if it is not an id."""
    if _ID.fullmatch(record) is None:
        return None
    return Kind.ADAPTER if record.startswith(_PREFIXES[Kind.ADAPTER]) else Kind.JOB


def prefix(record: str) -> str:
    """Return the prefix of all objects of a record.

    Raises:
        ValueError: not an id; an empty prefix would cover all records.
    """
    kind = kind_of(record)
    if kind is None:
        raise ValueError(f"{record!r} is not the id of a record")
    return f"{kind}s/{record}/"


def uploads(adapter: str) -> str:
    """Return the prefix of an adapter's uploads and of their list."""
    return f"{prefix(adapter)}inputs"


def upload(adapter: str, what: Upload, number: int) -> str:
    return f"{uploads(adapter)}/{what}/{number:03d}.png"


def inputs(adapter: str) -> str:
    """Return the key of the list of an adapter's uploads, which is written last and marks them as complete."""
    return f"{uploads(adapter)}.json"


def checkpoint(adapter: str, step: int, owner: str, file: str = "") -> str:
    """Return the key of a file of an attempt's checkpoint, or its folder."""
    return f"{prefix(adapter)}checkpoints/{step:07d}-{owner}/{file}"


def artifact(adapter: str, owner: str = "") -> str:
    """Return the folder of one attempt's finished adapter, or of all attempts'; the record names the valid one."""
    return f"{prefix(adapter)}artifact/{owner}/" if owner else f"{prefix(adapter)}artifact/"


def samples(adapter: str) -> str:
    return f"{prefix(adapter)}samples/"


def sample(adapter: str, step: int, owner: str) -> str:
    return f"{samples(adapter)}{step:07d}-{owner}.png"


def block(job: str, number: int, owner: str) -> str:
    """Return the key of a worker's candidates of a block; the job's blocks name the valid one."""
    return f"{prefix(job)}blocks/{number:06d}-{owner}.zip"


def verdict(job: str, number: int, owner: str) -> str:
    """Return the key of a judge's verdict on a block; the job's blocks name the valid one."""
    return f"{prefix(job)}blocks/{number:06d}-{owner}.json"


def evaluated(job: str, seed: int, row: str, owner: str) -> str:
    """Return the key of one attempt's numbers of a row of an evaluation; the job's checkpoint names the valid one."""
    return f"{prefix(job)}evaluation/{seed}-{row}-{owner}.json"


def results(job: str, owner: str = "") -> str:
    """Return the folder of one attempt's results, or of all attempts'; the record names the valid one."""
    return f"{prefix(job)}results/{owner}/" if owner else f"{prefix(job)}results/"


def dataset(job: str, owner: str) -> str:
    return f"{results(job, owner)}dataset.zip"


def dataset_name(adapter_name: str, job: str) -> str:
    """Return the name under which a dataset is saved: valid on every system, for names in any script."""
    stem = re.sub(r"[^\w.-]+", "-", unicodedata.normalize("NFC", adapter_name)).strip("-.")
    return f"{stem or 'dataset'}-{job}.zip"


def preview(job: str, owner: str) -> str:
    return f"{results(job, owner)}preview.png"


def rejected(job: str, owner: str) -> str:
    """Return the key of the rejected candidates that are kept to look at."""
    return f"{results(job, owner)}rejected.zip"


def places(job: str) -> str:
    """Return the key of the masks that were drawn for a job, stored before its record is created."""
    return f"{prefix(job)}places.json"


def approved(job: str) -> str:
    """Return the key of the list of pairs that a selection consists of, stored before its record is created."""
    return f"{prefix(job)}approved.json"
