"""The size that a header declares is the size that Pillow finds."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from service.core.uploads.sizes import declared_pixels

KINDS = {
    "png": {"format": "PNG"},
    "jpeg": {"format": "JPEG"},
    "progressive jpeg": {"format": "JPEG", "progressive": True, "comment": b"x" * 3000},
    "bmp": {"format": "BMP"},
    "tiff": {"format": "TIFF"},
    "deflated tiff": {"format": "TIFF", "compression": "tiff_adobe_deflate"},
    "webp": {"format": "WEBP"},
    "lossless webp": {"format": "WEBP", "lossless": True},
    "extended webp": {"format": "WEBP", "exif": b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(1, 1), (37, 53), (700, 300)])
def test_the_declared_size_is_read(tmp_path: Path, kind: str, size: tuple[int, int]) -> None:
    path = tmp_path / "picture"
    Image.new("RGB", size, (9, 99, 199)).save(path, **KINDS[kind])
    assert declared_pixels(path) == size[0] * size[1]


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"\xff\xd8", b"\xff\xd8ab", b"II*\0\xff\xff\xff\xff", b"GIF89a", b"BM"]
)
def test_what_has_no_readable_header_has_no_size(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "picture"
    path.write_bytes(content)
    assert declared_pixels(path) is None
    path.write_bytes(content + bytes(40))
    assert declared_pixels(path) in {None, 0}
