"""Finds out about bases from their configurations, without torch, which the parent of a worker does not load."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import structlog
from redis import Redis
from redis.exceptions import RedisError

from service.core.bases import BaseFacts, announce
from service.core.options.methods import suited_method
from service.core.settings import Settings

log = structlog.stdlib.get_logger(__name__)


def announce_bases(redis: Redis, settings: Settings) -> None:
    """Announce the shipped bases and the default one, if that is a folder; a hub id is announced once it is loaded."""
    folders = {folder.name: folder for folder in _shipped().iterdir() if folder.is_dir()}
    default = Path(settings.base).expanduser()
    if settings.base not in folders and default.is_dir():
        folders[settings.base] = default
    found = [facts for name, folder in folders.items() if (facts := facts_of(name, folder)) is not None]
    try:
        announce(redis, *found)
    except RedisError as error:
        log.warning("bases_not_told", error=repr(error))


def facts_of(name: str, folder: Path) -> BaseFacts | None:
    """Read a base's configurations; None if it is not complete, which the first request that needs it is told."""
    try:
        unet, vae = (_json(folder / part / "config.json") for part in ("unet", "vae"))
        card = _json(folder / "card.json") if (folder / "card.json").is_file() else {}
        factor = 2 ** (len(vae["block_out_channels"]) - 1)
        return BaseFacts(
            name=name,
            resolution=int(unet["sample_size"]) * factor,
            multiple=factor * 2 ** (len(unet["block_out_channels"]) - 1),
            training=dict(card.get("few_shot", {})),
            sampling=dict(card.get("sampling", {})),
            license=str(card.get("license", "")),
            method=suited_method(folder),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _json(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


def _shipped() -> Path:
    return Path(str(resources.files("model"))) / "bases"
