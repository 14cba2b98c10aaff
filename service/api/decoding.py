"""Judging an upload: its files are decoded by another process, within limits of memory and time."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import structlog

from service.api.decoder import Inspection
from service.api.problems import Problem
from service.api.uploads import KINDS, Form
from service.core.errors import TransientError
from service.core.settings import Settings
from service.core.uploads.decoding import ImageLimits

log = structlog.stdlib.get_logger(__name__)

CPU_SECONDS = 120
"""Of processor time that decoding one upload may take: whoever sends more has sent too much."""

SECONDS = 2 * CPU_SECONDS
"""By the clock: an inspector that gets less than half a core is let down by the server, not by the upload."""

BUSY_SECONDS = 30
"""When to come back after that."""

_BASE_BYTES = 2**29
"""Address space of Python with NumPy and Pillow, with room to spare."""

_BYTES_PER_PIXEL_HELD = 5
"""Three of an image and one of its mask, and what Python adds."""

_BYTES_PER_PIXEL_DECODED = 48
"""Of the one file at work: decoder, RGBA copies and 32-bit colour codes of a mask."""


@dataclass(frozen=True, slots=True)
class Picture:
    """An accepted picture, written anew as PNG.

    Attributes:
        name: the stem of what the client called it.
        path: the new file.
    """

    name: str
    path: Path
    width: int
    height: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Pictures:
    """What was accepted, by kind, and what was converted or looks odd, one sentence each."""

    images: list[Picture]
    masks: list[Picture]
    normals: list[Picture]
    notes: list[str]

    def of(self, kind: str) -> list[Picture]:
        return {"images": self.images, "masks": self.masks, "normals": self.normals}[kind]


@dataclass(frozen=True, slots=True)
class Refused:
    """Every mistake found, as entries of a problem's `errors`, and one sentence each that names not too many files."""

    errors: list[dict[str, Any]]
    told: list[str]


def memory_of(limits: ImageLimits) -> int:
    """Bytes of address space in which any upload within the limits is decoded.

    The server's memory has to hold so much for each of `MAX_INSPECTIONS` uploads, or its kernel ends one in the midst.
    """
    held, decoded = _BYTES_PER_PIXEL_HELD * limits.max_total_pixels, _BYTES_PER_PIXEL_DECODED * limits.max_pixels
    return _BASE_BYTES + held + decoded


def limits_of(settings: Settings) -> ImageLimits:
    """The limits of decoding that the settings ask for."""
    return ImageLimits(
        max_pairs=settings.max_pairs,
        max_file_bytes=settings.max_file_bytes,
        max_pixels=settings.max_pixels,
        max_total_pixels=settings.max_total_pixels,
    )


async def decode_uploads(form: Form, settings: Settings) -> Pictures | Refused:
    """Decode all files of a form; it takes memory and time, so not too many at once.

    Raises:
        Problem: the server lacks the time, memory or disk for it now.
    """
    limits = limits_of(settings)
    inspection = Inspection(
        files={kind: {file.name: str(file.path) for file in form.of(kind)} for kind in KINDS},
        limits=asdict(limits),
        brightness=form.fields.get("brightness"),
        mask_values=form.fields.get("mask_values"),
        folder=str(form.folder / "accepted"),
        memory_bytes=memory_of(limits),
        cpu_seconds=CPU_SECONDS,
    )
    answer = await _inspected(inspection)
    if isinstance(answer, str):
        return Refused([{"detail": answer}], [answer])
    if problems := answer["problems"]:
        # Of several files of one name, which the form's own errors tell of, the last was looked at.
        pointers = {(file.kind, file.name): file.pointer for file in form.files}
        return Refused([_placed(problem, pointers) for problem in problems], [each["brief"] for each in problems])
    folder = form.folder / "accepted"
    pictures = {
        kind: [
            Picture(path=folder / kind / f"{index:03}.png", **picture)
            for index, picture in enumerate(answer["pictures"][kind])
        ]
        for kind in KINDS
    }
    return Pictures(**pictures, notes=answer["notes"])


async def _inspected(inspection: Inspection) -> dict[str, Any] | str:
    """The inspector's answer, or a sentence on what is wrong with the upload that there is none."""
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "service.api.decoder"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=_environment(),
        )
    except OSError as error:  # no memory or no number for one more process
        log.warning("inspection_not_begun", error=repr(error))
        raise _busy("no process can be started to decode the pictures in") from error
    try:
        async with asyncio.timeout(SECONDS):
            output, errors = await process.communicate(json.dumps(inspection).encode())
    except TimeoutError as error:
        log.warning("inspection_too_slow", seconds=SECONDS)
        raise _busy(f"the pictures were not decoded within {SECONDS} seconds") from error
    finally:
        if process.returncode is None:  # also where the request was given up
            process.kill()
            await process.wait()
    returncode = process.returncode or 0
    if returncode == 0:
        answer: dict[str, Any] = json.loads(output)
        return answer
    said = errors.decode(errors="replace")
    log.warning("inspection_failed", returncode=returncode, said=said[-2000:])
    if "No space left on device" in said or "Disk quota exceeded" in said:
        raise Problem(
            "spool_full",
            "the disk that uploads are kept on is full; nothing was stored, try again later",
            headers={"Retry-After": "60"},
        )
    if returncode == -signal.SIGKILL:  # which no limit of its own sends: the kernel was out of memory
        raise _busy("the memory did not suffice to decode the pictures")
    if returncode < 0 or "MemoryError" in said:
        return "decoding the pictures takes more memory or time than is allowed: send fewer, smaller or other files"
    raise TransientError(f"the inspector ended with {returncode}")


def _busy(what: str) -> Problem:
    detail = f"{what}: the server has too much to do; nothing was stored, and the same upload may succeed later"
    return Problem("unavailable", detail, headers={"Retry-After": str(BUSY_SECONDS)})


def _environment() -> dict[str, str]:
    """What Python needs to start, and no secret; one thread, as stacks and a BLAS's buffers count as address space."""
    passed = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL")
    environment = {name: os.environ[name] for name in passed if name in os.environ}
    return {**environment, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}


def _placed(problem: dict[str, Any], pointers: Mapping[tuple[str, str], str]) -> dict[str, Any]:
    """An entry of `errors`: the sentence, the files it is about, and a pointer to the first of them."""
    files = [pointers[kind, name] for kind, name in problem["files"]]
    return {"detail": problem["detail"], **({"pointer": files[0], "files": files} if files else {})}
