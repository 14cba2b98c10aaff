"""Pictures that cost more memory or time than is allowed: refused, and the API goes on."""

from __future__ import annotations

import asyncio
import os
import signal
import struct
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image

from service.api import decoding
from service.api.problems import Problem
from service.core.settings import Settings
from service.core.uploads.decoding import ImageLimits
from tests.service.api.conftest import serving
from tests.service.api.uploads import SIDE, encoded, pairs, part, with_last

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
        accepted = client.post("/v1/adapters", data=FORM, files=pairs())
        assert accepted.status_code == 202, accepted.text


def test_a_server_that_is_too_slow_says_so_and_not_that_the_upload_is_wrong(
    settings: Settings, new_client: Callable[..., httpx2.Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "SECONDS", 1)
    with serving(settings) as url:
        client = new_client(url)
        slow = [part(kind, f"{number}.png", large()) for kind in ("images", "masks") for number in range(8)]
        answer = client.post("/v1/adapters", data=FORM, files=slow)
        assert answer.status_code == 503, answer.text
        assert answer.json()["code"] == "unavailable"
        assert answer.json()["detail"].startswith("the pictures were not decoded within 1 seconds")
        assert answer.headers["Retry-After"] == str(decoding.BUSY_SECONDS)
        assert client.get("/healthz").status_code == 200
        assert settings.spool_dir is not None
        assert list(settings.spool_dir.iterdir()) == []


def test_pictures_that_take_too_much_processor_time_are_refused(
    settings: Settings, new_client: Callable[..., httpx2.Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "CPU_SECONDS", 1)
    with serving(settings) as url:
        slow = [part(kind, f"{number}.png", large()) for kind in ("images", "masks") for number in range(8)]
        answer = new_client(url).post("/v1/adapters", data=FORM, files=slow)
        assert answer.status_code == 422, answer.text
        (error,) = answer.json()["errors"]
        assert error["detail"].startswith(REFUSED)


def wanted(tmp_path: Path, **limits: int) -> Any:
    """A request for many large pictures."""
    (tmp_path / "large.png").write_bytes(large())
    files = {f"{number}.png": str(tmp_path / "large.png") for number in range(8)}
    return {
        "files": {"images": files, "masks": files, "normals": {}},
        "limits": asdict(ImageLimits()),
        "folder": str(tmp_path / "accepted"),
        "memory_bytes": 2**33,
        "cpu_seconds": 100,
        **limits,
    }


@pytest.mark.parametrize("limit", [{"memory_bytes": 400 * 2**20}, {"cpu_seconds": 1}])
def test_the_limits_end_the_inspector_with_a_sentence(tmp_path: Path, limit: dict[str, int]) -> None:
    answer = asyncio.run(decoding._inspected(wanted(tmp_path, **limit)))
    assert isinstance(answer, str)
    assert answer.startswith(REFUSED)


def test_an_inspector_that_the_kernel_kills_is_the_servers_lack_of_memory(tmp_path: Path) -> None:
    with ThreadPoolExecutor() as pool:
        kernel = pool.submit(kill_inspector)
        with pytest.raises(Problem, match="the server ran out of memory") as caught:
            asyncio.run(decoding._inspected(wanted(tmp_path)))
        kernel.result()
    assert (caught.value.status_code, caught.value.code) == (503, "unavailable")
    assert caught.value.headers == {"Retry-After": str(decoding.BUSY_SECONDS)}


def kill_inspector() -> None:
    """End this process's child as the kernel would: once it is marked as the one to go first."""
    while True:
        for task in Path("/proc/self/task").iterdir():
            for child in (task / "children").read_text().split():
                process = Path("/proc") / child
                inspecting = b"service.api.decoder" in (process / "cmdline").read_bytes()
                if inspecting and (process / "oom_score_adj").read_text().strip() == "1000":
                    os.kill(int(child), signal.SIGKILL)
                    return
        time.sleep(0.02)
