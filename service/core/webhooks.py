"""Tells clients' servers that adapters and jobs have ended, by signed requests to hosts that the operator allows.

The script that ends a record puts its webhook into a queue in Redis, so that none is lost. Any number of processes may
deliver; an entry that is being delivered comes back if its process dies. Requests are signed as Standard Webhooks
(https://www.standardwebhooks.com): `webhook-id` is the same in every try, `webhook-signature` is `v1,` and the base64
of HMAC-SHA256 over id, timestamp and body.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import random
import time
from threading import Event
from urllib.parse import urlsplit

import httpx2
import structlog
from redis.exceptions import RedisError

from service.core.records.store import RecordStore
from service.core.settings import Settings
from service.core.strict_json import to_json

log = structlog.stdlib.get_logger(__name__)

PAUSES = (5, 30, 120, 600, 1800, 7200, 21_600)
"""Seconds before each further try; then it is given up."""

SECONDS = 10.0
"""Time that a receiver may take to answer."""

IDLE_SECONDS = 1.0


def refusal(url: str, settings: Settings) -> str | None:
    """Say why a webhook's address is refused; None if it is allowed."""
    allowed = {host.strip().lower() for host in settings.webhook_hosts.split(",") if host.strip()}
    if not allowed or settings.webhook_secret is None:
        return "this server sends no webhooks: ask its operator, or follow the events instead"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return f"{url!r:.100} is no address"
    host = (parts.hostname or "").lower() + (f":{port}" if port is not None else "")
    if parts.scheme not in {"https", "http"} or not parts.hostname or parts.username or parts.password:
        return f"{url!r:.100} is no address such as https://{min(allowed)}/finished"
    if host not in allowed:
        return f"the host {host!r:.100} is not allowed: allowed are {', '.join(sorted(allowed))}"
    return None


def signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """Sign a delivery."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(secret.encode(), signed, hashlib.sha256).digest()).decode()


def deliver_until(stop: Event, store: RecordStore, settings: Settings) -> None:
    """Deliver what is due until `stop` is set; to be run in a thread of its own."""
    # No redirects: only the address that was checked is called.
    with httpx2.Client(timeout=SECONDS, follow_redirects=False, trust_env=False) as client:
        while not stop.is_set():
            try:
                delivered = deliver_next(client, store, settings)
            except RedisError as error:
                log.warning("webhooks_interrupted", error=repr(error))
                delivered = False
            if not delivered:
                stop.wait(IDLE_SECONDS)


def deliver_next(client: httpx2.Client, store: RecordStore, settings: Settings) -> bool:
    """Deliver one webhook that is due; whether there was one."""
    record = store.upkeep.due_webhook(hold_seconds=6 * SECONDS)
    if record is None:
        return False
    found = store.records.get(record)
    url = found.request.get("webhook") if found is not None else None
    if found is None or not url or settings.webhook_secret is None or refusal(url, settings) is not None:
        store.upkeep.webhook_done(record)
        return True
    body = to_json({"type": f"{found.kind}.{found.state}", "data": {"id": record, "state": found.state}}).encode()
    now = int(time.time())
    headers = {
        "content-type": "application/json",
        "webhook-id": record,
        "webhook-timestamp": str(now),
        "webhook-signature": signature(settings.webhook_secret.get_secret_value(), record, now, body),
    }
    try:
        with client.stream("POST", url, content=body, headers=headers) as answer:
            outcome = str(answer.status_code)
            accepted = answer.is_success or answer.status_code == httpx2.codes.GONE
    except httpx2.HTTPError as error:
        outcome, accepted = repr(error), False
    if accepted:
        store.upkeep.webhook_done(record)
        log.info("webhook_delivered", record=record, outcome=outcome)
        return True
    tries = store.upkeep.webhook_failed(record, PAUSES, random.uniform(0.8, 1.2))
    log.warning("webhook_failed", record=record, outcome=outcome, tries=tries)
    return True
