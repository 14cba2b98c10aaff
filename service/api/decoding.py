"""Decodes the files of an upload in another process, within limits of memory and time."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import structlog

from service.api.decoder import Inspection
from service.api.problems import Problem
from service.api.uploads import KINDS, TYPED, Form, UploadedFile
from service.core.errors import TransientError
from service.core.object_keys import Upload
from service.core.settings import Settings
from service.core.strict_json import to_json
from service.core.uploads.decoding import ImageLimits
from service.core.uploads.sizes import declared_pixels

log = structlog.stdlib.get_logger(__name__)

CPU_SECONDS = 120
"""Processor time that decoding one upload may take; an upload that needs more is refused."""

SECONDS = 2 * CPU_SECONDS
"""Wall-clock limit: a decoder that gets less than half a core fails because of the server, not of the upload."""

BUSY_SECONDS = 30
"""`Retry-After` of a server that is too busy to decode."""

_BASE_BYTES = 2**29
"""Address space of Python with NumPy and Pillow, with a margin."""

_BYTES_PER_PIXEL_HELD = 5
"""Three of an image, one of its mask, and one for Python's overhead."""

_BYTES_PER_PIXEL_DECODED = 48
"""Of the file being decoded: decoder, RGBA copies and 32-bit colour codes of a mask."""


@dataclass(frozen=True, slots=True)
class Picture:
    """An accepted picture, re-encoded as PNG.

    Attributes:
        name: stem of the client's file name.
        path: the new file.
        defect: the defect type that the form names; empty for none.
    """

    name: str
    path: Path
    width: int
    height: int
    bytes: int
    sha256: str
    defect: str = ""


@dataclass(frozen=True, slots=True)
class Pictures:
    """The accepted pictures by kind, and notes on what was converted or looks odd, one sentence each.

    Attributes:
        brightness: the values that became black and white in pictures with more than 8 bits; None if there were none.
    """

    by_kind: Mapping[Upload, list[Picture]]
    notes: list[str]
    brightness: list[int] | None

    def of(self, kind: Upload) -> list[Picture]:
        return self.by_kind[kind]


@dataclass(frozen=True, slots=True)
class Refused:
    """Every mistake found.

    Attributes:
        errors: entries of a problem's `errors`.
        details: one sentence for each, which names the first few files only.
    """

    errors: list[dict[str, Any]]
    details: list[str]


def memory_of(limits: ImageLimits) -> int:
    """Bytes of address space that suffice to decode any upload within the limits.

    The server needs this much memory for each of `MAX_INSPECTIONS` uploads, or its kernel may kill a decoder.
    """
    held, decoded = _BYTES_PER_PIXEL_HELD * limits.max_total_pixels, _BYTES_PER_PIXEL_DECODED * limits.max_pixels
    return _BASE_BYTES + held + decoded


def limits_of(settings: Settings) -> ImageLimits:
    """Take the limits of decoding from the settings."""
    return ImageLimits(
        max_pairs=settings.max_pairs,
        max_file_bytes=settings.max_file_bytes,
        max_pixels=settings.max_pixels,
        max_total_pixels=settings.max_total_pixels,
    )


def declared(form: Form, settings: Settings) -> int:
    """Add up the pixels that the headers of a form's files declare; files of unknown kinds count as large ones."""
    found = (declared_pixels(file.path) for file in form.files)
    return sum(settings.max_pixels if pixels is None else pixels for pixels in found)


async def decode_uploads(form: Form, settings: Settings) -> Pictures | Refused:
    """Decode all files of a form. The caller limits how many forms are decoded at once.

    Raises:
        Problem: the server lacks time, memory or disk space at the moment.
    """
    limits = limits_of(settings)
    inspection = Inspection(
        files={kind: _paths(form.of(kind)) for kind in KINDS},
        defects={name: {kind: _paths(form.of(kind, name)) for kind in TYPED} for name in form.types(TYPED)},
        limits=asdict(limits),
        max_held_out=settings.max_held_out,
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
        # Of several files with one name, which the form's own errors report, only the last was decoded.
        pointers = {(file.kind, file.name, file.defect): file.pointer for file in form.files}
        return Refused([_placed(problem, pointers) for problem in problems], [each["brief"] for each in problems])
    folder = form.folder / "accepted"
    pictures = {
        kind: [
            Picture(path=folder / kind / f"{index:03}.png", **picture)
            for index, picture in enumerate(answer["pictures"][kind])
        ]
        for kind in KINDS
    }
    return Pictures(pictures, answer["notes"], answer["brightness"])


async def _inspected(inspection: Inspection) -> dict[str, Any] | str:
    """Run the decoder; returns its answer, or a sentence that says why the upload could not be decoded."""
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "service.api.decoder"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=_environment(),
        )
    except OSError as error:  # no memory or no process id for one more process
        log.warning("inspection_not_begun", error=repr(error))
        raise _busy("the process that decodes the pictures cannot be started") from error
    try:
        async with asyncio.timeout(SECONDS):
            output, errors = await process.communicate(to_json(inspection).encode())
    except TimeoutError as error:
        log.warning("inspection_too_slow", seconds=SECONDS)
        raise _busy(f"the pictures were not decoded within {SECONDS} seconds") from error
    finally:
        if process.returncode is None:  # also when the request was cancelled
            process.kill()
            await process.wait()
    returncode = process.returncode or 0
    if returncode == 0:
        answer: dict[str, Any] = json.loads(output)
        return answer
    output_text = errors.decode(errors="replace")
    log.warning("inspection_failed", returncode=returncode, said=output_text[-2000:])
    if "No space left on device" in output_text or "Disk quota exceeded" in output_text:
        raise Problem(
            "spool_full",
            "the disk for uploads is full; nothing was stored: try again later",
            headers={"Retry-After": "60"},
        )
    if returncode == -signal.SIGKILL:  # sent by the kernel when the machine is out of memory, not by the limits
        raise _busy("the server ran out of memory while decoding the pictures")
    if returncode < 0 or "MemoryError" in output_text:
        return "decoding the pictures takes more memory or time than is allowed: send fewer, smaller or other files"
    raise TransientError(f"the decoder ended with code {returncode}")


def _busy(what: str) -> Problem:
    detail = f"{what}: the server is too busy; nothing was stored, send the same upload again later"
    return Problem("unavailable", detail, headers={"Retry-After": str(BUSY_SECONDS)})


def _environment() -> dict[str, str]:
    """Build an environment without secrets, and with one thread: stacks and BLAS buffers count as address space."""
    passed = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL")
    environment = {name: os.environ[name] for name in passed if name in os.environ}
    return {**environment, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}


def _paths(files: Sequence[UploadedFile]) -> dict[str, str]:
    return {file.name: str(file.path) for file in files}


def _placed(problem: dict[str, Any], pointers: Mapping[tuple[str, str, str], str]) -> dict[str, Any]:
    """Make an entry of `errors`: the sentence, pointers to its files, and a pointer to the first of them."""
    files = [pointers[kind, name, defect] for kind, name, defect in problem["files"]]
    return {"detail": problem["detail"], **({"pointer": files[0], "files": files} if files else {})}
