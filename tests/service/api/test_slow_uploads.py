"""Uploads that take long or are many, or for which there is no room."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from service.core.settings import Settings
from tests.service.api.conftest import serving
from tests.service.api.uploads import pairs, part
from tests.service.api.wire import answered, begin, begin_upload, connected
from tests.support.scraping import scrape

NewClient = Callable[..., httpx2.Client]

FORM = {"name": "a"}


@pytest.fixture
def spool() -> Iterator[Path]:
    """A folder on a disk that others hardly write to."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


def test_a_body_that_stalls_is_given_up(settings: Settings, new_client: NewClient, spool: Path) -> None:
    quick = settings.model_copy(update={"body_idle_seconds": 0.3, "spool_dir": spool})
    with serving(quick) as url, connected(url) as connection:
        begin_upload(connection, new_client(url))
        assert answered(connection).startswith(b"HTTP/1.1 408 ")
        assert list(spool.iterdir()) == []


def test_a_body_that_takes_too_long_in_all_is_given_up(settings: Settings, new_client: NewClient) -> None:
    with serving(settings.model_copy(update={"body_seconds": 0.5})) as url, connected(url) as connection:
        begin(connection, new_client(url), "/v1/jobs", "application/json", size=60_000)
        connection.settimeout(0.02)
        answer = b""
        for _ in range(1_000):
            connection.sendall(b" ")
            try:
                answer = connection.recv(65_536)
                break
            except TimeoutError:
                continue
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_an_upload_for_which_there_is_no_room_is_refused_at_once(
    settings: Settings, new_client: NewClient, spool: Path
) -> None:
    free = shutil.disk_usage(spool).free
    narrow = settings.model_copy(update={"spool_dir": spool, "min_free_bytes": free - 10_000_000})
    with serving(narrow) as url, connected(url) as connection:
        client = new_client(url)
        assert client.post("/v1/adapters", data=FORM, files=pairs()).status_code == 202
        head = f"POST /v1/adapters HTTP/1.1\r\nHost: localhost\r\nAuthorization: {client.headers['authorization']}\r\n"
        head += "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 20000000\r\n\r\n"
        connection.sendall(head.encode())
        assert answered(connection).startswith(b"HTTP/1.1 507 ")


def test_an_upload_that_takes_up_the_room_is_refused_on_the_way(
    settings: Settings, new_client: NewClient, spool: Path
) -> None:
    free = shutil.disk_usage(spool).free
    narrow = settings.model_copy(update={"spool_dir": spool, "min_free_bytes": free - 4_000_000})
    form = httpx2.Request("POST", "http://x", data=FORM, files=[part("images", "a.png", bytes(12_000_000))])
    body = form.read()

    def in_parts() -> Iterator[bytes]:
        for start in range(0, len(body), 500_000):
            yield body[start : start + 500_000]

    with serving(narrow) as url:
        headers = {"Content-Type": form.headers["content-type"]}
        answer = new_client(url).post("/v1/adapters", content=in_parts(), headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (507, "spool_full")
        assert list(spool.iterdir()) == []


def test_of_open_uploads_each_key_has_its_share_and_all_have_theirs(settings: Settings, new_client: NewClient) -> None:
    with serving(settings.model_copy(update={"max_uploads": 2, "max_uploads_per_key": 1})) as url:
        one, two, three = (new_client(url) for _ in range(3))
        with connected(url) as first, connected(url) as second:
            begin_upload(first, one)
            answer = one.post("/v1/adapters", data=FORM, files=pairs())
            assert (answer.status_code, answer.json()["code"]) == (429, "too_many_open")
            assert int(answer.headers["retry-after"]) > 0
            begin_upload(second, two)
            answer = three.post("/v1/adapters", data=FORM, files=pairs())
            assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        deadline = time.monotonic() + 20
        while (answer := one.post("/v1/adapters", data=FORM, files=pairs())).status_code == 429:
            assert time.monotonic() < deadline
        assert answer.status_code == 202


@pytest.mark.parametrize("path", ["/v1/adapters", "/v1/jobs"])
def test_a_client_that_goes_away_is_no_fault_of_ours(settings: Settings, new_client: NewClient, path: str) -> None:
    with serving(settings) as url:
        client = new_client(url)
        with connected(url) as connection:
            if path == "/v1/adapters":
                begin_upload(connection, client)
            else:
                begin(connection, client, path, "application/json")
        deadline = time.monotonic() + 20
        while not (told := scrape(f"{url}/metrics")).value("http_requests_total", method="POST"):
            assert time.monotonic() < deadline
        assert told.value("http_requests_total", method="POST", status="499") == 1
