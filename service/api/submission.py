"""Creates records, once per Idempotency-Key and within the quotas of the API key, and then sends them to workers."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import structlog
from fastapi import Request
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from service.api.problems import Problem
from service.api.services import Services
from service.core import object_keys
from service.core.errors import TransientError
from service.core.messaging import workers_for
from service.core.object_keys import Kind
from service.core.record import Record, State
from service.core.records.errors import AdapterNotReady, CannotFollow, IdempotencyConflict, QuotaExceeded, TooFast
from service.core.records.submissions import Idempotency

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Submission:
    """A request to create a record: its kind, new id, owner, idempotency and request id."""

    kind: Kind
    id: str
    key_id: str
    idempotency: Idempotency | None
    request_id: str

    @classmethod
    def of(cls, request: Request, kind: Kind, key_id: str, idempotency_key: str | None, fingerprint: str) -> Submission:
        """Make a submission with a new id; equal fingerprints mean equal requests under one Idempotency-Key."""
        idempotency = None
        if idempotency_key is not None:
            # Adapters and jobs are different requests, whatever their bodies.
            own = hashlib.sha256(f"{kind}\n{fingerprint}".encode()).hexdigest()
            idempotency = Idempotency(idempotency_key, own)
        return cls(kind, object_keys.new_id(kind), key_id, idempotency, request.state.request_id)


def require_quota(services: Services, key_id: str, idempotency_key: str | None) -> None:
    """Refuse a request whose quota is used up, before its body is received.

    Raises:
        Problem: a quota is used up, or the key sends too many requests.
    """
    try:
        services.store.submissions.require_rate(key_id)
        services.store.submissions.require_quota(key_id, idempotency_key)
    except (QuotaExceeded, TooFast) as error:
        problem = _over_quota(error) if isinstance(error, QuotaExceeded) else _too_fast(error)
        # Without `close` the server would first receive the whole body.
        problem.headers = {**(problem.headers or {}), "Connection": "close"}
        raise problem from error


def require_rate(services: Services, key_id: str) -> None:
    """Refuse a key that sends too many requests.

    Raises:
        Problem: it does.
    """
    try:
        services.store.submissions.require_rate(key_id)
    except TooFast as error:
        raise _too_fast(error) from error


def _too_fast(error: TooFast) -> Problem:
    detail = f"at most {error.per_minute} adapters and jobs may be created per minute: wait {math.ceil(error.wait)} s"
    return Problem("rate_limited", detail, headers={"Retry-After": str(math.ceil(error.wait))})


def replayed(services: Services, submission: Submission) -> Record | None:
    """Look up the record that this Idempotency-Key has created before, ahead of any work.

    Raises:
        Problem: the key was used for another request.
    """
    if submission.idempotency is None:
        return None
    try:
        return services.store.submissions.replay(submission.key_id, submission.idempotency)
    except IdempotencyConflict as error:
        raise _conflict(submission) from error


def submit(
    services: Services,
    submission: Submission,
    request: dict[str, Any],
    notes: Sequence[str] = (),
    stored_bytes: int = 0,
    work: int = 0,
) -> Record:
    """Save the record, then send its message. A record with another id was created by an equal, faster request.

    Raises:
        Problem: a quota is used up, the Idempotency-Key was used for another request, the adapter is gone, or the
            job that this one goes on after is, or is followed already.
    """
    follows = (request.get("follows") or {}).get("job_id")
    generates = submission.kind == Kind.JOB and "selection" not in request
    try:
        record, is_new = services.store.submissions.create(
            submission.kind,
            submission.id,
            submission.key_id,
            request,
            notes=notes,
            stored_bytes=stored_bytes,
            idempotency=submission.idempotency,
            request_id=submission.request_id,
            work=work,
            workers=workers_for(request["num_pairs"], services.settings) if generates else 1,
            adapter=request["adapter_id"] if generates else None,
            follows=follows,
        )
    except IdempotencyConflict as error:
        raise _conflict(submission) from error
    except QuotaExceeded as error:
        raise _over_quota(error) from error
    except AdapterNotReady as error:  # it was ready a moment ago
        code = "adapter_not_ready" if error.state else "adapter_not_found"
        state = error.state or "deleted"
        detail = f"adapter {request['adapter_id']} is {state}: a job needs one that has succeeded"
        raise Problem(code, detail) from error
    except CannotFollow as error:
        raise _cannot_follow(request["follows"]["job_id"], error) from error
    if is_new:
        log.info("record_created", record=record.id)
        services.metrics.submitted(submission.kind)
        try:
            services.dispatcher.send(record)
        except (OperationalError, RedisError) as error:
            # The record is saved, and the reconciler sends missing messages.
            log.warning("send_postponed", record=record.id, error=repr(error))
    return record


@contextmanager
def kept_if_created(services: Services, record: str) -> Iterator[Callable[[Record], Record]]:
    """Keep what the block stores for a new record only if the record is created; the block passes that on.

    If the process dies in between, the reconciler deletes what was stored.
    """
    services.store.submissions.reserve(record)
    kept = False

    def created(found: Record) -> Record:
        nonlocal kept
        kept = found.id == record
        return found

    try:
        yield created
    except RedisError:
        kept = True  # the record may exist, and it would need what was stored
        raise
    finally:
        if not kept:
            try:
                services.storage.delete_prefix(object_keys.prefix(record))
            except TransientError as error:
                log.warning("free_postponed", record=record, error=repr(error))


def _conflict(submission: Submission) -> Problem:
    detail = (
        f"this Idempotency-Key was used for a different request that created another {submission.kind}: use a new key"
    )
    return Problem("idempotency_key_reused", detail, errors=[{"parameter": "Idempotency-Key", "detail": detail}])


def _cannot_follow(job: str, error: CannotFollow) -> Problem:
    if not error.follower:
        return Problem("job_not_found", f"job {job} was deleted")
    first = "" if error.state is State.SUCCEEDED else "wait for it, then "
    detail = (
        f"job {job} has replacements already, job {error.follower}, which is {error.state}; a second job would make "
        f"the same pairs: {first}ask for replacements of {error.follower}"
    )
    return Problem("already_replaced", detail, errors=[{"parameter": "job_id", "in": "path", "detail": detail}])


def _over_quota(error: QuotaExceeded) -> Problem:
    if error.quota == "active":
        detail = f"{error.used} of your adapters and jobs are queued or running, the limit is {error.limit}: wait"
        return Problem("quota_exceeded", detail, headers={"Retry-After": "60"})
    if error.quota == "all":
        return Problem(
            "quota_exceeded",
            f"you have {error.used} adapters and jobs, the limit is {error.limit}: delete those you do not need",
        )
    if error.quota == "work":
        detail = (
            f"the work of your queued and running adapters and jobs is {error.used:,} pixels, and with this request it "
            f"would exceed the limit of {error.limit:,}: wait, or ask for less"
        )
        return Problem("quota_exceeded", detail, headers={"Retry-After": "60"})
    gigabytes = f"{error.used / 1e9:.2f} of {error.limit / 1e9:g} GB"
    return Problem("quota_exceeded", f"your stored data uses {gigabytes}: delete what you do not need")
