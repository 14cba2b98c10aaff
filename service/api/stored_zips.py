"""Reads single files of zips in the object store, without fetching the zips.

The worker stores the files of a zip uncompressed, so that each is a range of the object's bytes. A key is written once
and never again, so what was read of it stays true.
"""

from __future__ import annotations

import io
import struct
from functools import lru_cache
from zipfile import ZIP_STORED, ZipFile

from service.core.storage import MissingObject, ObjectStore

KNOWN_ZIPS = 256
"""Zips whose directories are remembered; those of blocks are small."""

_LOCAL_HEADER = struct.Struct("<4s22xHH")
_BUFFER = 64 * 1024


class StoredZip:
    """A zip in the object store.

    Raises:
        MissingObject: no object has this key.
    """

    def __init__(self, storage: ObjectStore, key: str) -> None:
        self._storage = storage
        self._key = key
        size = next((found.size for found in storage.list(key) if found.key == key), None)
        if size is None:
            raise MissingObject(key)
        with ZipFile(io.BufferedReader(_Ranged(storage, key, size), _BUFFER)) as file:
            self._entries = {entry.filename: entry for entry in file.infolist() if entry.compress_type == ZIP_STORED}

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def read(self, name: str) -> bytes:
        """Read one file by one request.

        Raises:
            KeyError: the zip has no such file.
        """
        entry = self._entries[name]
        # The header before the content repeats the name; its extra field may differ from the directory's.
        most = entry.header_offset + _LOCAL_HEADER.size + len(name.encode()) + len(entry.extra) + 64
        content = self._storage.get_range(self._key, entry.header_offset, most + entry.file_size)
        _, name_length, extra_length = _LOCAL_HEADER.unpack_from(content)
        start = _LOCAL_HEADER.size + name_length + extra_length
        return content[start : start + entry.file_size]


class StoredZips:
    """Opens zips and remembers their directories. Safe to use from several threads."""

    def __init__(self, storage: ObjectStore) -> None:
        self.open = lru_cache(maxsize=KNOWN_ZIPS)(lambda key: StoredZip(storage, key))


class _Ranged(io.RawIOBase):
    """An object as a file that reads what is asked for."""

    def __init__(self, storage: ObjectStore, key: str, size: int) -> None:
        self._storage, self._key, self._size, self._place = storage, key, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = max(0, base + offset)
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        stop = min(self._size, self._place + len(buffer))
        if stop <= self._place:
            return 0
        content = self._storage.get_range(self._key, self._place, stop)
        buffer[: len(content)] = content
        self._place += len(content)
        return len(content)
