"""Pictures that cost more memory or time than is allowed: refused, and the API goes on."""

from __future__ import annotations

import asyncio
import struct
import zlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image

from service.api import inspection
from service.core.decoding import ImageLimits
from service.core.settings import Settings
from tests.api.conftest import serving
from tests.api.uploads import SIDE, encoded, pairs, part, with_last

pytestmark = pytest.mark.timeout(300)

FORM = {"name": "a"}
REFUSED = "decoding the pictures takes more memory or time than is allowed"


def in_one_large_tile(side: int = SIDE, tile: int = 25_600) -> bytes:
    """A small picture in a TIFF of less than a megabyte, in one tile of 655 MB, all of which is unpacked for it."""
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(bytes(2**20)) for _ in range(tile * tile >> 20)) + packer.flush()
    # Width, height, bits, compression (deflate), interpretation (black is zero), samples, tile's width and height,
    # the data's place and size, after TIFF 6.0.
    tags = {256: side, 257: side, 258: 8, 259: 8, 262: 1, 277: 1, 322: tile, 323: tile, 324: 0, 325: len(data)}
    tags[324] = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data


def large(side: int = 4096) -> bytes:
    """A picture of a few kilobytes that takes a good part of a second."""
    return encoded(Image.new("RGB", (side, side), (9, 99, 199)))


def test_a_file_that_unpacks_to_more_than_is_allowed_is_refused_by_name(
    settings: Settings, new_client: Callable[..., httpx2.Client]
) -> None:
    small = settings.model_copy(update={"max_pixels": 10**6, "max_total_pixels": 10**6})
    with serving(small) as url:
        client = new_client(url)
        answer = client.post("/v1/adapters", data=FORM, files=with_last("images", in_one_large_tile()))
        assert answer.status_code == 422, answer.text
        assert any("tile_2.png" in error["detail"] for error in answer.json()["errors"])
        assert client.post("/v1/adapters", data=FORM, files=pairs()).status_code == 202


def test_pictures_that_take_too_long_are_refused(
    settings: Settings, new_client: Callable[..., httpx2.Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspection, "SECONDS", 1)
    with serving(settings) as url:
        client = new_client(url)
        slow = [part(kind, f"{number}.png", large()) for kind in ("images", "masks") for number in range(8)]
        answer = client.post("/v1/adapters", data=FORM, files=slow)
        assert answer.status_code == 422, answer.text
        (error,) = answer.json()["errors"]
        # Its processor time and the clock run against each other.
        assert error["detail"].startswith((REFUSED, "the pictures take more than 1 seconds"))
        assert client.get("/healthz").status_code == 200
        assert settings.spool_dir is not None
        assert list(settings.spool_dir.iterdir()) == []


@pytest.mark.parametrize("limit", [{"memory_bytes": 400 * 2**20}, {"cpu_seconds": 1}])
def test_the_limits_end_the_inspector_with_a_sentence(tmp_path: Path, limit: dict[str, int]) -> None:
    (tmp_path / "large.png").write_bytes(large())
    files = {f"{number}.png": str(tmp_path / "large.png") for number in range(8)}
    wanted: dict[str, Any] = {
        "files": {"images": files, "masks": files, "normals": {}},
        "limits": asdict(ImageLimits()),
        "folder": str(tmp_path / "accepted"),
        "memory_bytes": 2**33,
        "cpu_seconds": 100,
    }
    answer = asyncio.run(inspection._inspected({**wanted, **limit}))
    assert isinstance(answer, str)
    assert answer.startswith(REFUSED)
