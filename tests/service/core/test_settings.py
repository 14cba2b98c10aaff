"""Settings come from the environment and from files of secrets."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from service.core.settings import Settings, load_settings


def test_without_an_environment_everything_has_a_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PAIRFORGE_SECRETS_DIR", raising=False)
    settings = load_settings()
    assert settings.redis_url == "redis://127.0.0.1:6379/0"
    assert settings.s3_access_key_id is None
    assert settings.require_keys


def test_the_environment_wins_over_files_of_secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "pairforge_s3_secret_access_key").write_text("from a file\n")
    (tmp_path / "pairforge_s3_bucket").write_text("from-a-file")
    monkeypatch.setenv("PAIRFORGE_SECRETS_DIR", str(tmp_path))
    monkeypatch.setenv("PAIRFORGE_S3_BUCKET", "from-the-environment")
    monkeypatch.setenv("PAIRFORGE_REQUIRE_KEYS", "false")
    settings = load_settings()
    assert settings.s3_secret_access_key is not None
    assert settings.s3_secret_access_key.get_secret_value() == "from a file"
    assert settings.s3_bucket == "from-the-environment"
    assert not settings.require_keys


def test_secrets_are_not_shown() -> None:
    settings = Settings.model_validate({"s3_secret_access_key": "open sesame"})
    assert "open sesame" not in repr(settings)


def test_every_impossible_value_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAIRFORGE_MAX_PAIRS", "0")
    monkeypatch.setenv("PAIRFORGE_LINK_SECONDS", "604801")
    with pytest.raises(ValidationError) as refused:
        load_settings()
    assert {problem["loc"] for problem in refused.value.errors()} == {("max_pairs",), ("link_seconds",)}


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        Settings().max_pairs = 5


def test_messages_come_back_no_sooner_than_leases_end() -> None:
    assert Settings(lease_seconds=0.5).visibility_timeout == 1
    assert Settings(lease_seconds=60).visibility_timeout == 60
