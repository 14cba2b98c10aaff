from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from model.cli.app import app
from service.client import Client
from service.core.errors import TransientError, UsageError
from service.embedded.binaries import check_redis, find_rclone, find_redis
from service.embedded.folder import DataFolder, default_data_dir, find_running
from service.embedded.processes import Child, Command, end_marked, marked
from tests.support.waiting import wait_until


def refused(*arguments: str | Path) -> str:
    """What a command says that ends with exit code 2."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 2
    return result.stderr


def test_all_that_is_wrong_with_the_options_is_told_at_once(tmp_path: Path) -> None:
    told = refused("up", "--data-dir", tmp_path / "data", "--host", "localhost", "--workers", "0")
    assert "--host is 'localhost'; it must be an IP address" in told
    assert "--workers is 0" in told
    assert "cannot be part of download links" in refused("up", "--data-dir", tmp_path / "data", "--host", "::")
    assert "must be from 1 to 65535" in refused("up", "--data-dir", tmp_path / "data", "--port", "0")
    assert "is not an address of this machine" in refused("up", "--data-dir", tmp_path / "data", "--host", "192.0.2.1")
    assert not (tmp_path / "data").exists()


def test_a_port_in_use_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = refused("up", "--data-dir", tmp_path / "data", "--port", str(port))
    assert f"127.0.0.1:{port} is in use" in told


def test_missing_programs_are_told_with_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = find_redis()
    monkeypatch.setenv("PATH", str(tmp_path))
    # Without any PATH the wheels' own are found.
    assert find_redis().name == program.name == "redis-server"
    assert find_rclone().name == "rclone"


def test_a_redis_that_cannot_read_the_folder_is_refused(tmp_path: Path) -> None:
    old = tmp_path / "redis-server"
    old.write_text("#!/bin/sh\necho 'Redis server v=6.2.14 sha=0'\n")
    old.chmod(0o700)
    check_redis(old, tmp_path)
    (tmp_path / "appendonlydir").mkdir()
    with pytest.raises(UsageError, match=r"written by Redis 7 or later, but .* is 6\.2\.14"):
        check_redis(old, tmp_path)
    old.write_text("#!/bin/sh\necho 'Redis server v=5.0.3 sha=0'\n")
    with pytest.raises(UsageError, match=r"must be 6\.2 or later"):
        check_redis(old, tmp_path)


def test_a_folder_with_other_things_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    assert "contains files that are not a stack's" in refused("up", "--data-dir", tmp_path)
    assert "cannot be used" in refused("up", "--data-dir", tmp_path / "thesis.txt" / "data")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_credentials_are_made_once_per_folder(tmp_path: Path) -> None:
    first = DataFolder(tmp_path / "data")
    made = first.credentials()
    with pytest.raises(UsageError, match="already runs"):
        DataFolder(tmp_path / "data")
    first.close()
    second = DataFolder(tmp_path / "data")
    assert second.credentials() == made
    second.close()
    (tmp_path / "data" / "credentials.json").write_text("{")
    third = DataFolder(tmp_path / "data")
    with pytest.raises(UsageError, match="damaged"):
        third.credentials()
    third.close()


def test_the_data_folder_is_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_data_dir() == tmp_path / "pairforge"
    monkeypatch.setenv("XDG_DATA_HOME", "not/absolute")
    assert default_data_dir() == Path.home() / ".local" / "share" / "pairforge"


def test_without_a_server_it_is_said_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    for name in ("PAIRFORGE_URL", "PAIRFORGE_REDIS_URL", "PAIRFORGE_SECRETS_DIR"):
        monkeypatch.delenv(name, raising=False)
    assert find_running(default_data_dir()) is None
    assert "pairforge up" in refused("jobs", "list")
    assert "pairforge up" in refused("keys", "list")
    monkeypatch.setenv("PAIRFORGE_URL", "ftp://somewhere")
    assert "is not the URL of a server" in refused("jobs", "list")
    monkeypatch.setenv("PAIRFORGE_URL", "http://127.0.0.1:9")
    assert "is not an id" in refused("jobs", "show", "../adapters")
    assert "--set rank: write NAME=VALUE, such as rank=8" in refused(
        "adapters", "create", tmp_path, tmp_path, "--set", "rank"
    )
    assert "cannot be read" in refused("jobs", "create", "adp_x", "-n", "1", "--limits", tmp_path / "limits.json")


def test_a_server_that_is_not_there_is_something_temporary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.client.transport.ATTEMPTS", 2)
    with Client("http://127.0.0.1:9") as client, pytest.raises(TransientError, match="cannot be reached"):
        client.list_jobs()


def test_a_child_and_all_it_has_started_end_with_the_group(tmp_path: Path) -> None:
    script = "sleep 300 & setsid sleep 300 & wait"
    child = Child(Command("sleeper", ["sh", "-c", script]), tmp_path, tmp_path)
    while len(found := marked(tmp_path)) < 3 or {os.getsid(pid) for pid in found} == {child.pid}:
        assert not child.ended()
    (apart,) = (pid for pid in found if os.getsid(pid) != child.pid)
    child.kill()
    # One had left the group; the environment still tells whose it is.
    wait_until(lambda: marked(tmp_path) == [apart])
    assert end_marked(tmp_path) == 1
    assert child.ended() == "was killed by SIGKILL"
    assert marked(tmp_path) == []


def test_a_child_tells_how_it_ended_and_what_it_said(tmp_path: Path) -> None:
    child = Child(Command("failing", ["sh", "-c", "echo one; echo two >&2; exit 3"]), tmp_path, tmp_path)
    assert child.wait(20)
    assert child.ended() == "ended with code 3"
    assert child.log_tail(1) == "two"


def test_results_are_told_to_machines_as_json(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["up", "--json", "--workers", "0", "--data-dir", str(tmp_path / "data")])
    event = json.loads(result.stdout)
    assert (event["event"], event["kind"], event["exit_code"], result.exit_code) == ("error", "usage", 2, 2)


def test_the_services_commands_run_without_the_library() -> None:
    code = "import sys; sys.modules['model'] = None; from service.cli.app import app; app(['--help'])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "adapters" in run.stdout
