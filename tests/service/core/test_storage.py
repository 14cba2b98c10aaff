"""The object store, on a real S3 server."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import unquote

import boto3
import httpx2
import pytest
from botocore.exceptions import ClientError

from service.core.storage import MissingObject, ObjectInfo, ObjectStore, StorageError
from tests.support.relay import relayed
from tests.support.servers import ACCESS_KEY, SECRET_KEY, MakeSettings, S3Server

UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def test_what_is_put_can_be_read(objects: ObjectStore, tmp_path: Path) -> None:
    objects.put("jobs/a/dataset.zip", b"zip", "application/zip")
    (tmp_path / "weights").write_bytes(b"w" * 1_000_000)
    objects.put("jobs/a/weights", tmp_path / "weights")
    objects.download("jobs/a/weights", tmp_path / "back")
    assert objects.get("jobs/a/dataset.zip") == b"zip"
    assert (tmp_path / "back").read_bytes() == b"w" * 1_000_000


def test_a_file_of_many_parts_arrives_whole(objects: ObjectStore, tmp_path: Path) -> None:
    content = bytes(range(256)) * 2**18 + b"end"  # 64 MiB and a little
    (tmp_path / "big").write_bytes(content)
    objects.put("jobs/a/dataset.zip", tmp_path / "big")
    objects.download("jobs/a/dataset.zip", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content


def test_putting_again_replaces(objects: ObjectStore) -> None:
    objects.put("jobs/a/x", b"first, and longer")
    objects.put("jobs/a/x", b"second")
    assert objects.get("jobs/a/x") == b"second"


def test_what_is_missing_is_told(objects: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(MissingObject):
        objects.get("jobs/a/x")
    with pytest.raises(MissingObject):
        objects.download("jobs/a/x", tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_objects_are_listed_by_prefix_in_order(objects: ObjectStore) -> None:
    for key in ("jobs/b/2", "jobs/b/10", "jobs/bb/1", "jobs/a/1"):
        objects.put(key, key.encode())
    assert objects.list("jobs/b/") == [ObjectInfo("jobs/b/10", 9), ObjectInfo("jobs/b/2", 8)]
    assert objects.list("adapters/") == []


def test_deleting_a_prefix_leaves_its_neighbours(objects: ObjectStore) -> None:
    for key in ("jobs/b/1", "jobs/b/2/3", "jobs/bb/1"):
        objects.put(key, b"x")
    objects.delete_prefix("jobs/b/")
    objects.delete_prefix("jobs/none/")
    assert [found.key for found in objects.list("jobs/")] == ["jobs/bb/1"]


def test_the_whole_bucket_cannot_be_deleted(objects: ObjectStore) -> None:
    with pytest.raises(ValueError, match="whole bucket"):
        objects.delete_prefix("")


def test_more_objects_than_one_answer_holds_are_listed_and_deleted(objects: ObjectStore, s3_server: S3Server) -> None:
    folder = s3_server.objects / "pairforge" / "jobs" / "many"
    folder.mkdir(parents=True)
    for number in range(1001):
        (folder / f"{number:04d}").touch()
    assert len(objects.list("jobs/many/")) == 1001
    objects.delete_prefix("jobs/many/")
    assert objects.list("jobs/many/") == []


def test_a_signed_link_downloads_under_the_name_it_was_made_for(objects: ObjectStore) -> None:
    objects.put("jobs/a/dataset.zip", b"zip")
    link = objects.signed_link(
        "jobs/a/dataset.zip", filename='Bohr"loch\n7.zip', content_type="application/zip", expires=60
    )
    answer = httpx2.get(link)
    assert answer.content == b"zip"
    assert answer.headers["content-disposition"] == 'attachment; filename="Bohr_loch_7.zip"'
    assert answer.headers["content-type"] == "application/zip"


def test_a_name_in_another_script_is_told_in_full_and_in_plain_letters(objects: ObjectStore) -> None:
    objects.put("jobs/a/dataset.zip", b"zip")
    link = objects.signed_link("jobs/a/dataset.zip", filename="плита 1.zip", content_type="application/zip", expires=60)
    disposition = httpx2.get(link).headers["content-disposition"]
    plain, _, full = disposition.partition("; filename*=UTF-8''")
    assert plain == 'attachment; filename="_____ 1.zip"'
    assert unquote(full) == "плита 1.zip"


def test_a_changed_link_is_refused(objects: ObjectStore) -> None:
    objects.put("jobs/a/dataset.zip", b"zip")
    objects.put("jobs/b/dataset.zip", b"another's")
    link = objects.signed_link("jobs/a/dataset.zip", filename="x.zip", content_type="application/zip", expires=60)
    assert httpx2.get(link.replace("jobs/a/", "jobs/b/")).status_code == 403
    assert httpx2.get(link.partition("?")[0]).is_client_error


def test_links_are_signed_with_the_public_endpoint(server_settings: MakeSettings) -> None:
    store = ObjectStore(server_settings(s3_public_endpoint_url="https://files.example.com"))
    link = store.signed_link("jobs/a/dataset.zip", filename="x.zip", content_type="application/zip", expires=60)
    store.close()
    assert link.startswith("https://files.example.com/pairforge/jobs/a/dataset.zip?")


def test_the_bucket_is_made_once(server_settings: MakeSettings) -> None:
    store = ObjectStore(server_settings())
    assert not store.ready()
    store.ensure_bucket()
    store.ensure_bucket()
    assert store.ready()
    store.close()


def test_a_server_that_is_down_is_a_passing_failure(objects: ObjectStore, s3_server: S3Server, tmp_path: Path) -> None:
    objects.put("jobs/a/x", b"x")
    s3_server.kill()
    with pytest.raises(StorageError):
        objects.get("jobs/a/x")
    (tmp_path / "file").write_bytes(b"y")
    with pytest.raises(StorageError):
        objects.put("jobs/a/y", tmp_path / "file")
    s3_server.start()
    assert objects.get("jobs/a/x") == b"x"


def test_a_download_that_keeps_breaking_off_is_a_passing_failure(
    objects: ObjectStore, s3_server: S3Server, server_settings: MakeSettings, tmp_path: Path
) -> None:
    objects.put("jobs/a/x", b"x" * 1_000_000)

    def in_the_middle(sent: bytes, answer: bytes) -> int | None:
        relay.mend()  # for the next attempt
        return len(answer) // 2 if sent.startswith(b"GET") else None

    with relayed(s3_server.port, in_the_middle) as relay:
        store = ObjectStore(server_settings(s3_endpoint_url=f"http://127.0.0.1:{relay.port}"))
        with pytest.raises(StorageError):
            store.download("jobs/a/x", tmp_path / "x")
        with pytest.raises(StorageError):
            store.get("jobs/a/x")
        store.close()
    assert list(tmp_path.iterdir()) == []


def test_uploads_in_parts_that_nobody_goes_on_with_are_given_up(objects: ObjectStore, s3_server: S3Server) -> None:
    client = boto3.client(
        "s3",
        endpoint_url=s3_server.url,
        region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
    )
    client.create_multipart_upload(Bucket="pairforge", Key="jobs/a/dataset.zip")
    now = datetime.now(UTC)
    assert objects.abort_stale_uploads(now - timedelta(hours=1)) == 0
    assert objects.abort_stale_uploads(now + timedelta(hours=1)) == 1
    assert objects.abort_stale_uploads(now + timedelta(hours=1)) == 0
    client.close()


@contextmanager
def failing_before(server: S3Server, failures: int) -> Iterator[tuple[int, list[int]]]:
    """A port that answers 503 to the first connections and passes the others on to the server; and its answers."""
    answers: list[int] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                request = client.recv(65536)
                if len(answers) < failures:
                    answers.append(503)
                    client.sendall(UNAVAILABLE)
                    continue
                answers.append(200)
                with socket.create_connection(("127.0.0.1", server.port)) as behind:
                    behind.sendall(request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
                    while received := behind.recv(65536):
                        client.sendall(received)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1], answers
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def test_a_server_that_does_not_answer_is_soon_known_not_to_be_ready(server_settings: MakeSettings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = ObjectStore(server_settings(s3_endpoint_url=f"http://127.0.0.1:{silent.getsockname()[1]}"))
        started = time.monotonic()
        with pytest.raises(StorageError):
            store.ready()
        assert time.monotonic() - started < 10
        store.close()


def test_an_answer_of_503_is_asked_again(
    objects: ObjectStore, s3_server: S3Server, server_settings: MakeSettings
) -> None:
    with failing_before(s3_server, failures=2) as (port, answers):
        store = ObjectStore(server_settings(s3_endpoint_url=f"http://127.0.0.1:{port}"))
        assert store.list("jobs/") == []
        store.close()
    assert answers == [503, 503, 200]


def test_answers_of_503_without_end_are_a_passing_failure(s3_server: S3Server, server_settings: MakeSettings) -> None:
    with failing_before(s3_server, failures=100) as (port, answers):
        store = ObjectStore(server_settings(s3_endpoint_url=f"http://127.0.0.1:{port}"))
        with pytest.raises(StorageError):
            store.list("jobs/")
        store.close()
    assert answers == [503] * 5


def test_an_upload_that_is_refused_is_no_passing_failure(server_settings: MakeSettings, tmp_path: Path) -> None:
    file = tmp_path / "pair.png"
    file.write_bytes(b"pair")
    stranger = ObjectStore(server_settings(s3_secret_access_key="not-the-secret-of-this-key"))
    for content in (b"pair", file):
        with pytest.raises(ClientError, match=r"Forbidden|AccessDenied|SignatureDoesNotMatch|403"):
            stranger.put("jobs/a/refused", content)
    stranger.close()
