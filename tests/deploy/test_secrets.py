"""The secrets of docker-compose.yml are made once, for one user's eyes, and open the servers they are made for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from redis import Redis
from redis.exceptions import AuthenticationError

from service.core.settings import load_settings
from service.embedded.binaries import find_redis
from tests.support.servers import Server

ROOT = Path(__file__).resolve().parents[2]
SERVICES = ("api", "redis", "s3", "exporter", "grafana")


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    """As they are mounted when the project is first started: empty."""
    for name in ("credentials", *(f"{service}-secrets" for service in SERVICES)):
        (tmp_path / name).mkdir()
    return tmp_path


def make(volumes: Path) -> None:
    subprocess.run([sys.executable, str(ROOT / "deploy/compose/make_secrets.py"), str(volumes)], check=True)


def contents(volumes: Path) -> dict[str, str]:
    return {str(file.relative_to(volumes)): file.read_text() for file in volumes.rglob("*") if file.is_file()}


def test_secrets_are_made_once_and_for_one_user(volumes: Path) -> None:
    make(volumes)
    first = contents(volumes)
    assert {path.partition("/")[0] for path in first} == {"credentials", *(f"{name}-secrets" for name in SERVICES)}
    assert {file.stat().st_mode & 0o777 for file in volumes.rglob("*") if file.is_file()} == {0o400}

    (volumes / "api-secrets" / "pairforge_redis_url").unlink()  # as if the first start had been cut off
    make(volumes)
    assert contents(volumes) == first


def test_no_two_projects_share_a_secret(volumes: Path) -> None:
    make(volumes)
    first = contents(volumes)
    for file in volumes.rglob("*"):
        if file.is_file():
            file.unlink()
    make(volumes)
    assert contents(volumes).keys() == first.keys()
    assert set(contents(volumes).values()).isdisjoint(first.values())


def test_the_api_reads_what_the_servers_were_given(volumes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(volumes)
    monkeypatch.setenv("PAIRFORGE_SECRETS_DIR", str(volumes / "api-secrets"))
    settings, made = load_settings(), contents(volumes)
    assert settings.s3_access_key_id is not None
    assert settings.s3_secret_access_key is not None
    assert settings.s3_access_key_id.get_secret_value() == made["s3-secrets/access_key_id"]
    assert settings.s3_secret_access_key.get_secret_value() == made["s3-secrets/secret_access_key"]
    assert settings.redis_url == made["exporter-secrets/broker_url"]
    assert settings.redis_url == f"redis://:{made['redis-secrets/password']}@redis:6379/0"


def test_redis_asks_for_the_password_and_drops_nothing(volumes: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    make(volumes)
    data = tmp_path_factory.mktemp("data")
    inside = {"/run/secrets/redis.conf": str(volumes / "redis-secrets" / "redis.conf"), "/data": str(data)}
    asked = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["redis"]["command"]
    arguments = [inside.get(word, word) for word in asked[1:]]
    server = Server(lambda port: [str(find_redis()), *arguments, "--port", str(port)], {}, data)
    server.start()
    try:
        with Redis(port=server.port) as stranger, pytest.raises(AuthenticationError):
            stranger.ping()
        password = contents(volumes)["redis-secrets/password"]
        with Redis(port=server.port, password=password, decode_responses=True) as client:
            told = client.config_get("*")
    finally:
        server.kill()
    assert {name: told[name] for name in ("appendonly", "appendfsync", "save", "maxmemory-policy", "dir")} == {
        "appendonly": "yes",
        "appendfsync": "always",
        "save": "",
        "maxmemory-policy": "noeviction",
        "dir": str(data),
    }
