"""API keys: who may ask for anything.

A key is `pf_<id>_<secret>`. Only the SHA-256 of the secret is stored: it has 256 random bits, so there is nothing that
a slow hash would protect. Records belong to the id.
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

LOCAL = "local"
"""The owner of everything that is made where no keys are required."""

_KEYS = f"{NAMESPACE}keys"
_FORM = re.compile(r"pf_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
_NOBODY = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as its owner may see it again: without the secret. `created_at` is a Unix time."""

    id: str
    name: str
    created_at: float


def create_key(redis: Redis, name: str) -> str:
    """A new key. It cannot be shown again."""
    key_id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
    entry = {"name": name, "created_at": time.time(), "sha256": _digest(secret)}
    redis.hset(_KEYS, key_id, json.dumps(entry))
    return f"pf_{key_id}_{secret}"


def verify(redis: Redis, presented: str) -> str | None:
    """The id of the key that was presented; None where it is none of ours.

    It takes the same time whether the id or the secret is wrong, and however much of the secret is right.
    """
    form = _FORM.fullmatch(presented)
    if form is None:
        return None
    key_id, secret = form.groups()
    entry = cast(str | None, redis.hget(_KEYS, key_id))
    stored = json.loads(entry)["sha256"] if entry else _NOBODY
    return key_id if hmac.compare_digest(_digest(secret), stored) else None


def list_keys(redis: Redis) -> list[ApiKey]:
    """All keys, the oldest first."""
    entries = cast(dict[str, str], redis.hgetall(_KEYS))
    found = [(key_id, json.loads(entry)) for key_id, entry in entries.items()]
    listed = [ApiKey(key_id, entry["name"], entry["created_at"]) for key_id, entry in found]
    return sorted(listed, key=lambda key: key.created_at)


def renew_key(redis: Redis, key_id: str) -> str | None:
    """A new secret under the same id, which keeps its records; the one before opens nothing any more.

    Returns:
        The key, which cannot be shown again; None where there is none of that id.
    """
    secret = secrets.token_urlsafe(32)

    def replace(pipe: Pipeline) -> None:
        entry = cast(str | None, pipe.hget(_KEYS, key_id))
        pipe.multi()
        if entry is not None:
            pipe.hset(_KEYS, key_id, json.dumps({**json.loads(entry), "sha256": _digest(secret)}))

    written = redis.transaction(replace, _KEYS)
    return f"pf_{key_id}_{secret}" if written else None


def revoke_key(redis: Redis, key_id: str) -> bool:
    """Forget a key; its records stay. Whether there was one."""
    return bool(redis.hdel(_KEYS, key_id))


def adopt_records(redis: Redis, former: str, key_id: str) -> int:
    """Give a key what another owner has made: `LOCAL`, or a key that was revoked; all of it at once. How many records.

    Raises:
        UsageError: there is no such key, or the other owner is still a key.
    """
    # It gives no leases and makes no attempts.
    outcome = Scripts(redis, lease_seconds=0, max_attempts=0).run("adopt", former, key_id)
    if outcome == "unknown":
        raise UsageError(f"there is no key {key_id}: see pairforge keys list")
    if outcome == "taken":
        raise UsageError(f"{former} is a key itself: what it made can be adopted when it is revoked")
    return int(outcome)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
