"""Workers announce themselves, names of dead workers go, and nobody else can stop a worker."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from redis import Redis

from service.core.scripts import HEARD_SECONDS, WORKERS
from tests.support.waiting import wait_until
from worker.monitoring.heartbeat import (
    FORGOTTEN_SECONDS,
    Heartbeat,
    ask_children_to_stop,
    forget_stop,
    is_stopping,
)


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of temporary files that everybody can write."""
    tmp_path.chmod(0o1777)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_names_of_workers_that_died_long_ago_are_forgotten(redis_client: Redis) -> None:
    now = float(redis_client.time()[0])
    silent, gone = now - HEARD_SECONDS - 1, now - FORGOTTEN_SECONDS - 10
    redis_client.zadd(WORKERS, {"silent": silent, "gone": gone})
    heartbeat = Heartbeat(redis_client, "alive")
    heartbeat.start()
    wait_until(lambda: redis_client.zscore(WORKERS, "gone") is None)
    assert set(redis_client.zrange(WORKERS, 0, -1)) == {"alive", "silent"}
    heartbeat.stop()
    assert redis_client.zrange(WORKERS, 0, -1) == ["silent"]


def test_a_request_to_stop_lies_where_only_this_user_can_write(shared: Path) -> None:
    forget_stop()
    assert not is_stopping(os.getpid())
    ask_children_to_stop()
    assert is_stopping(os.getpid())
    (folder,) = shared.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    forget_stop()
    assert not is_stopping(os.getpid())


@pytest.mark.parametrize("kind", ["link", "file", "writable"])
def test_a_folder_that_others_could_write_is_refused(shared: Path, kind: str) -> None:
    folder, elsewhere = shared / f"pairforge-worker-{os.getuid()}", shared / "elsewhere"
    elsewhere.mkdir()
    if kind == "link":
        folder.symlink_to(elsewhere)
    elif kind == "file":
        folder.touch()
    else:
        folder.mkdir()
        folder.chmod(0o777)
    with pytest.raises(OSError, match=folder.name):
        forget_stop()
    assert list(elsewhere.iterdir()) == []
