"""Receives a multipart form: writes its files to a scratch folder as they arrive, within limits of size and number.

Nothing is decoded here, and a client's file name is never used as a name on the server's disk.
"""

from __future__ import annotations

import errno
import hashlib
import re
import unicodedata
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import BinaryIO

from anyio import to_thread
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from service.api.problems import Problem, pointer
from service.core.disk import disk_is_full
from service.core.object_keys import Upload
from service.core.scratch_dirs import free_bytes, scratch_dir, sweep
from service.core.settings import Settings
from service.core.uploads.names import shown_name

KINDS = tuple(Upload)
"""Form fields that hold files; `images[]` is the same as `images`."""

PAIRS = (Upload.IMAGES, Upload.MASKS)
HELD_OUT_PAIRS = (Upload.HELD_OUT_IMAGES, Upload.HELD_OUT_MASKS)
TYPED = PAIRS + HELD_OUT_PAIRS
"""Those that may name the defect type of their files: `images[crack]`."""

_FIELD = re.compile(r"(?P<kind>[a-z_]+)(\[(?P<defect>[^\[\]]*)\])?")

SCRATCH = "upload-"
"""Prefix of the folders that uploads are received in."""

_NAMED_TOGETHER = (
    *((Upload.IMAGES, Upload.MASKS), (Upload.NORMALS,)),
    *((Upload.HELD_OUT_IMAGES, Upload.HELD_OUT_MASKS), (Upload.HELD_OUT_NORMALS,)),
)
"""Kinds whose names must fit together."""

MAX_FIELDS = 64
MAX_FIELD_BYTES = 4096
_NAME_LENGTH = 200


@dataclass(slots=True)
class UploadedFile:
    """A received file.

    Attributes:
        kind: one of `KINDS`.
        index: position among those of its kind and defect type, from 0.
        name: the client's name for it without folders, for messages and metadata only; where two files of its kind
            would have the same one, the folders that tell them apart are before it.
        given: the client's name as it was sent, with folders.
        path: the file on the server's disk.
        size: bytes kept; at most one more than the limit.
        sha256: of its content, hexadecimal.
        defect: the defect type that the form names; empty for none.
    """

    kind: str
    index: int
    name: str
    given: str
    path: Path
    size: int = 0
    sha256: str = ""
    defect: str = ""

    @property
    def pointer(self) -> str:
        return pointer(self.kind, *filter(None, [self.defect]), self.index)


@dataclass(slots=True)
class Form:
    """A completely received form; `errors` are mistakes in it, as in a problem document."""

    folder: Path
    fields: dict[str, str] = field(default_factory=dict)
    files: list[UploadedFile] = field(default_factory=list)
    errors: list[dict[str, str]] = field(default_factory=list)

    def of(self, kind: str, defect: str = "") -> list[UploadedFile]:
        """List the files of a kind that show a defect type; by default those whose type is not named."""
        return [file for file in self.files if (file.kind, file.defect) == (kind, defect)]

    def types(self, kinds: Sequence[str]) -> list[str]:
        """List the defect types that files of these kinds name, in alphabetical order, however they were sent."""
        return sorted({file.defect for file in self.files if file.kind in kinds} - {""})

    def name_apart(self) -> None:
        """Put folders before the names of files that have the same one, and report those that still do."""
        types = ("", *self.types(TYPED))
        for kinds, defect in product(_NAMED_TOGETHER, types):
            together = [file for kind in kinds for file in self.of(kind, defect)]
            if len({(file.kind, file.name) for file in together}) < len(together):
                for kind in kinds:
                    _put_folders_first(self.of(kind, defect))
        for kind, defect in product(KINDS, types):
            found: set[str] = set()
            for file in self.of(kind, defect):
                if file.name in found:
                    detail = f"two of the {kind} are called {file.name}: keep one of them, or rename one"
                    self.errors.append({"pointer": file.pointer, "detail": detail})
                found.add(file.name)

    def fingerprint(self) -> str:
        """Hash fields and files, independent of their order and of the form's boundary."""
        parts = [f"{name}={value!r}" for name, value in self.fields.items()]
        parts += [f"{file.kind}{file.defect and [file.defect]}:{file.name!r}:{file.sha256}" for file in self.files]
        return hashlib.sha256("\n".join(sorted(parts)).encode(errors="surrogatepass")).hexdigest()


@asynccontextmanager
async def receive_form(request: Request, settings: Settings) -> AsyncIterator[Form]:
    """Receive the request's form into a scratch folder that lasts as long as the context.

    Raises:
        Problem: no multipart form, malformed, too large, or no space on the disk. Mistakes in single files do not
            raise: they are in the form's `errors`.
    """
    media_type, options = parse_options_header(request.headers.get("content-type"))
    if media_type != b"multipart/form-data" or not options.get(b"boundary"):
        raise Problem("unsupported_media_type", "send a multipart/form-data form with images[] and masks[]")
    # What a killed process left must not count as taken.
    await to_thread.run_sync(sweep, settings.spool_dir, SCRATCH)
    length = request.headers.get("content-length", "0")
    _require_free(settings, int(length) if length.isdecimal() else 0)
    scratch = ExitStack()
    try:
        folder = await to_thread.run_sync(scratch.enter_context, scratch_dir(settings.spool_dir, SCRATCH))
    except OSError as error:
        raise _disk_problem(error) from error
    try:
        receiver = _Receiver(folder, settings)
        try:
            parser = MultipartParser(options[b"boundary"], receiver.callbacks())  # type: ignore[arg-type]
            async for chunk in request.stream():
                _require_free(settings, len(chunk))
                # In a thread, because it writes and hashes files.
                await to_thread.run_sync(parser.write, chunk)
            if not receiver.complete:
                raise Problem("bad_request", "the form was cut off: its closing boundary is missing")
        except FormParserError as error:
            raise Problem("bad_request", f"the form is malformed: {error}") from error
        except OSError as error:
            raise _disk_problem(error) from error
        finally:
            receiver.abandon()
        receiver.form.name_apart()
        yield receiver.form
    finally:
        await to_thread.run_sync(scratch.close)


def _disk_problem(error: OSError) -> Problem:
    if not disk_is_full(error) and error.errno != errno.EFBIG:
        raise error
    return _full()


def _require_free(settings: Settings, wanted: int) -> None:
    """Keep a reserve of disk space for other programs that write there and may fail on a full disk."""
    if free_bytes(settings.spool_dir) - wanted < settings.min_free_bytes:
        raise _full()


def _full() -> Problem:
    return Problem(
        "spool_full",
        "the disk for uploads is full; nothing was stored: try again later",
        headers={"Retry-After": "60", "Connection": "close"},
    )


class _Receiver:
    """Receives the parts of a form through callbacks of the streaming parser."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.form = Form(folder)
        self.complete = False
        self._max_file_bytes = settings.max_file_bytes
        self._max_files: dict[str, int] = {
            Upload.IMAGES: settings.max_pairs,
            Upload.MASKS: settings.max_pairs,
            Upload.NORMALS: settings.max_normals,
            Upload.HELD_OUT_IMAGES: settings.max_held_out,
            Upload.HELD_OUT_MASKS: settings.max_held_out,
            Upload.HELD_OUT_NORMALS: settings.max_held_out_normals,
        }
        self._max_parts = MAX_FIELDS + sum(self._max_files.values())
        self._parts = self._fields = 0
        self._header = (b"", b"")
        self._disposition = b""
        self._name: str | None = None
        self._text = bytearray()
        self._file: UploadedFile | None = None
        self._open: BinaryIO | None = None
        self._hash = hashlib.sha256()

    def callbacks(self) -> dict[str, object]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._start,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._complete,
        }

    def abandon(self) -> None:
        """Close a file that was not received completely."""
        if self._open is not None:
            # It is deleted next, so a failed write does not matter.
            with suppress(OSError):
                self._open.close()

    def _complete(self) -> None:
        self.complete = True

    def _begin(self) -> None:
        self._disposition = b""
        self._parts += 1
        if self._parts > self._max_parts:
            raise Problem("bad_request", f"the form has more than {self._max_parts} parts, which is the limit")

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header = (self._header[0] + data[start:end], self._header[1])

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._header = (self._header[0], self._header[1] + data[start:end])

    def _header_end(self) -> None:
        if self._header[0].lower() == b"content-disposition":
            self._disposition = self._header[1]
        self._header = (b"", b"")

    def _start(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"name" not in options:
            raise Problem(
                "bad_request", "a part of the form has no name in its Content-Disposition: every part needs one"
            )
        self._name = options[b"name"].decode(errors="replace")
        if b"filename" in options:
            self._start_file(self._name, shown_name(options[b"filename"].decode(errors="surrogateescape")))
        else:
            self._fields += 1
            if self._fields > MAX_FIELDS:
                raise Problem("bad_request", f"the form has more than {MAX_FIELDS} fields, which is the limit")
            self._text.clear()

    def _start_file(self, part: str, given: str) -> None:
        kind, defect = kind_and_defect(part)
        if kind not in KINDS or (defect and kind not in TYPED):
            raise Problem(
                "invalid_request",
                f"unknown file field {part}: send files as {', '.join(f'{known}[]' for known in KINDS)}, or, with the "
                f"name of a defect type, as {', '.join(f'{known}[crack]' for known in TYPED)}",
                errors=[{"pointer": pointer(part), "detail": "unknown file field"}],
            )
        taken = sum(file.kind == kind for file in self.form.files)
        if taken >= self._max_files[kind]:
            raise Problem(
                "content_too_large",
                f"more than {self._max_files[kind]} {kind}: send at most {self._max_files[kind]} for one adapter",
                errors=[{"pointer": pointer(kind), "detail": f"at most {self._max_files[kind]} files"}],
            )
        index, path = len(self.form.of(kind, defect)), self.form.folder / f"{kind}-{taken:03}"
        self._file = UploadedFile(kind, index, client_name(given), given, path, defect=defect)
        self._hash = hashlib.sha256()
        self._open = self._file.path.open("wb")

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._file is None or self._open is None:
            self._text += data[start:end]
            if len(self._text) > MAX_FIELD_BYTES:
                detail = f"longer than the limit of {MAX_FIELD_BYTES} bytes"
                errors = [{"pointer": pointer(self._name or ""), "detail": detail}]
                raise Problem("invalid_request", f"{self._name} is {detail}", errors=errors)
            return
        space = self._max_file_bytes - self._file.size
        if space >= 0:
            # One byte over the limit is kept, by which the decoder sees that the file is too large.
            kept = memoryview(data)[start : min(end, start + space + 1)]
            self._open.write(kept)
            self._hash.update(kept)
            self._file.size += len(kept)

    def _end(self) -> None:
        if self._file is None or self._open is None:
            self._end_field(self._name or "")
            return
        opened, self._open = self._open, None
        opened.close()
        file, self._file = self._file, None
        file.sha256 = self._hash.hexdigest()
        if not file.name and not file.size:
            return  # a browser's empty file input
        if not file.name:
            detail = f"one of the {file.kind} has no file name: every file needs one"
            self.form.errors.append({"pointer": file.pointer, "detail": detail})
        self.form.files.append(file)

    def _end_field(self, name: str) -> None:
        try:
            text = self._text.decode()
        except UnicodeDecodeError:
            self.form.errors.append(
                {"pointer": pointer(name), "detail": f"{name} is not valid UTF-8: send it as UTF-8 text"}
            )
            return
        if name in self.form.fields:
            self.form.errors.append({"pointer": pointer(name), "detail": f"{name} is given twice: give it once"})
        # A browser sends empty text for fields that were left empty.
        if text.strip():
            self.form.fields[name] = text.strip()


def _put_folders_first(files: Sequence[UploadedFile]) -> None:
    """Name files by their folders, without those that all of them share."""
    paths = [re.split(r"[/\\]", file.given) for file in files]
    folders = [path[:-1] for path in paths]
    differing = (depth for depth, names in enumerate(zip(*folders, strict=False)) if len({*names}) > 1)
    shared = next(differing, min(map(len, folders), default=0))
    for file, path in zip(files, paths, strict=True):
        file.name = client_name("_".join(path[shared:]))


def kind_and_defect(field: str) -> tuple[str, str]:
    """Split the name of a form's field, `images[crack]`, into kind and defect type; that of `images[]` is empty."""
    found = _FIELD.fullmatch(unicodedata.normalize("NFC", field))
    return (found["kind"], (found["defect"] or "").strip()) if found else (field, "")


def client_name(name: str) -> str:
    """Make a client's file name fit to be shown: without folders and control characters, of bounded length."""
    base = re.split(r"[/\\]", unicodedata.normalize("NFC", name))[-1]
    spaced = (" " if unicodedata.category(character) == "Zs" else character for character in base)
    shown = "".join(character for character in spaced if character.isprintable())
    if len(shown) > _NAME_LENGTH:
        stem, dot, suffix = shown.rpartition(".")
        shown = stem[: _NAME_LENGTH - 16] + dot + suffix[:15] if dot else shown[:_NAME_LENGTH]
    return shown.strip()
