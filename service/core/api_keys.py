"""Creates, verifies, renews and revokes API keys.

A key is `pf_<id>_<secret>`. Only the SHA-256 of the secret is stored; a slow hash is not needed, because the secret has
256 random bits. Records belong to the id.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import time
from dataclasses import dataclass
from typing import cast

from redis import Redis
from redis.client import Pipeline

from service.core.errors import UsageError
from service.core.scripts import NAMESPACE, Scripts
from service.core.settings import Settings
from service.core.strict_json import to_json

LOCAL = "local"
"""Owner of the records made while no keys were required."""

_KEYS = f"{NAMESPACE}keys"
_FORM = re.compile(r"pf_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
_NOBODY = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key without its secret.

    Attributes:
        created_at: Unix time.
        read_only: whether it may only read.
        expires_at: Unix time from which it is not valid; None if it always is.
    """

    id: str
    name: str
    created_at: float
    read_only: bool = False
    expires_at: float | None = None

    @property
    def expired(self) -> bool:
        return self.expires_at is not None and time.time() >= self.expires_at


def create_key(redis: Redis, name: str, *, read_only: bool = False, expires_at: float | None = None) -> str:
    """Create a key, which cannot be shown again.

    Args:
        read_only, expires_at: see `ApiKey`.
    """
    key_id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
    entry = {"name": name, "created_at": time.time(), "sha256": _digest(secret)}
    entry |= {"read_only": read_only, "expires_at": expires_at}
    redis.hset(_KEYS, key_id, to_json(entry))
    return f"pf_{key_id}_{secret}"


def verify(redis: Redis, presented: str) -> ApiKey | None:
    """Return a presented key; None if it is not valid.

    The time is the same whether the id or the secret is wrong, and however much of the secret is right.
    """
    form = _FORM.fullmatch(presented)
    if form is None:
        return None
    key_id, secret = form.groups()
    entry = cast(str | None, redis.hget(_KEYS, key_id))
    stored = json.loads(entry)["sha256"] if entry else _NOBODY
    if not hmac.compare_digest(_digest(secret), stored) or entry is None:
        return None
    found = _parsed(key_id, entry)
    return None if found.expired else found


def list_keys(redis: Redis) -> list[ApiKey]:
    """List all keys, oldest first."""
    entries = cast(dict[str, str], redis.hgetall(_KEYS))
    return sorted((_parsed(*item) for item in entries.items()), key=lambda key: key.created_at)


def _parsed(key_id: str, entry: str) -> ApiKey:
    found = json.loads(entry)
    return ApiKey(key_id, found["name"], found["created_at"], found.get("read_only", False), found.get("expires_at"))


def renew_key(redis: Redis, key_id: str) -> str | None:
    """Replace the secret of a key, which keeps its id and records; the old secret stops working.

    Returns:
        The key, which cannot be shown again; None if no key has this id.
    """
    secret = secrets.token_urlsafe(32)

    def replace(pipe: Pipeline) -> None:
        entry = cast(str | None, pipe.hget(_KEYS, key_id))
        pipe.multi()
        if entry is not None:
            pipe.hset(_KEYS, key_id, to_json({**json.loads(entry), "sha256": _digest(secret)}))

    written = redis.transaction(replace, _KEYS)
    return f"pf_{key_id}_{secret}" if written else None


def revoke_key(redis: Redis, key_id: str) -> bool:
    """Delete a key; its records stay. Returns whether the key existed."""
    return bool(redis.hdel(_KEYS, key_id))


def adopt_records(redis: Redis, former: str, key_id: str) -> int:
    """Give a key all records of another owner, `LOCAL` or a revoked key, atomically. Returns their number.

    Raises:
        UsageError: no key has this id, or the other owner is a key that was not revoked.
    """
    outcome = Scripts(redis, Settings.model_construct()).run("adopt", former, key_id)
    if outcome == "unknown":
        raise UsageError(f"no key has the id {key_id}: see pairforge keys list")
    if outcome == "taken":
        raise UsageError(f"{former} is a key that is still valid: revoke it before another key adopts its records")
    return int(outcome)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
