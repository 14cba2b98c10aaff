"""Sends messages to the workers through Celery; a message is the id of a record and nothing else.

A message is a hint that there is work: the worker takes whichever record is the next (`records.claims.Claims.next`), so
the message of a record that was cancelled delays nothing. A duplicate does no harm, and a lost one is sent again by
`service.core.reconcile`. Messages are acknowledged after the work; during the work the worker renews their
delivery, so that a dead worker's message returns after one lease.
"""

from __future__ import annotations

import base64
import json
import math
from typing import Any

from celery import Celery
from kombu.exceptions import OperationalError
from redis import Redis
from redis.exceptions import RedisError

from service.core.object_keys import Kind, kind_of
from service.core.record import Record
from service.core.scripts import NAMESPACE
from service.core.settings import Settings

TRAIN, GENERATE = "pairforge.train", "pairforge.generate"
"""Names of the tasks; their only argument is the id of an adapter or a job."""

QUEUES = {TRAIN: "train", GENERATE: "generate"}

PREFIX = f"{NAMESPACE}celery:"

MOST_WAITING = 1000
"""Messages that wait in one queue at most. Each serves any record, so more would only keep idle workers busy."""


def celery_config(settings: Settings) -> dict[str, Any]:
    """Build the settings of Celery, which API and workers share."""
    transport = {
        "visibility_timeout": settings.visibility_timeout,
        # kombu checks for expired deliveries every (interval × throttle) seconds; its defaults make that 100.
        "unacked_restore_interval": 2,
        "unacked_restore_throttle": 1,
        # A worker that is killed during this check blocks the others for so long; kombu's default is five minutes.
        "unacked_mutex_expire": 10,
        "global_keyprefix": PREFIX,
        "socket_keepalive": True,
        "socket_connect_timeout": 5,
        "health_check_interval": 25,
        "retry_policy": {"timeout": 5.0},
    }
    return {
        "broker_url": settings.redis_url,
        "broker_transport_options": transport,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "result_backend": None,
        "task_ignore_result": True,
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_routes": {task: {"queue": queue} for task, queue in QUEUES.items()},
        "task_acks_late": True,
        # The record counts attempts and the reconciler sends again; a requeued message would only be a duplicate.
        "task_reject_on_worker_lost": False,
        "task_publish_retry": True,
        "task_publish_retry_policy": {"max_retries": 3, "interval_start": 0.1, "interval_step": 0.3, "interval_max": 1},
        "worker_prefetch_multiplier": 1,
        # A worker that loses Redis for a moment keeps its lease if it reconnects in time, and is fenced if not.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_hijack_root_logger": False,
    }


def workers_for(num_pairs: int, settings: Settings) -> int:
    """Choose the number of workers that a job is offered to: one per `pairs_per_shard` pairs, within the limit."""
    return min(settings.max_shards, math.ceil(num_pairs / settings.pairs_per_shard))


class Dispatcher:
    """Sends messages. Methods raise `kombu.exceptions.OperationalError` if the broker cannot be reached; the record is
    saved by then, and the reconciler sends again.
    """

    def __init__(self, settings: Settings, redis: Redis) -> None:
        self._settings = settings
        self._redis = redis
        self._celery = Celery("pairforge", set_as_current=False)
        self._celery.conf.update(celery_config(settings))

    def send_training(self, adapter: str) -> None:
        self._send(TRAIN, adapter)

    def send_generation(self, job: str, workers: int) -> None:
        for _ in range(workers):
            self._send(GENERATE, job)

    def send_one(self, record: str) -> None:
        """Send one message, whatever the record is."""
        self._send(TRAIN if kind_of(record) is Kind.ADAPTER else GENERATE, record)

    def _send(self, task: str, record: str) -> None:
        try:
            waiting = self._redis.llen(f"{PREFIX}{QUEUES[task]}")
        except RedisError as error:
            raise OperationalError(str(error)) from error
        if waiting < MOST_WAITING:
            self._celery.send_task(task, args=[record])

    def send(self, record: Record) -> None:
        """Send the messages that a record needs."""
        if record.kind is Kind.ADAPTER:
            self.send_training(record.id)
        else:
            workers = 1 if record.is_selection else workers_for(record.request["num_pairs"], self._settings)
            self.send_generation(record.id, workers)

    def close(self) -> None:
        """Close the connections."""
        self._celery.close()


def renew_delivery(redis: Redis, delivery_tag: str) -> bool:
    """Postpone the redelivery of an unacknowledged message by another visibility timeout.

    Args:
        delivery_tag: `task.request.properties["delivery_tag"]`.

    Returns:
        Whether the message is still unacknowledged, possibly by another worker: a redelivered one keeps its tag.
    """
    seconds, microseconds = redis.time()
    index = f"{PREFIX}unacked_index"
    redis.zadd(index, {delivery_tag: seconds + microseconds / 1e6}, xx=True)
    return redis.zscore(index, delivery_tag) is not None


def message_counts(redis: Redis) -> tuple[dict[str, int], int]:
    """Count the waiting messages of each queue, and the delivered messages that are not acknowledged yet."""
    # Redis at its memory limit refuses every transaction, and then these numbers are wanted.
    with redis.pipeline(transaction=False) as pipe:
        for queue in QUEUES.values():
            pipe.llen(f"{PREFIX}{queue}")
        pipe.hlen(f"{PREFIX}unacked")
        *waiting, unacked = pipe.execute()
    return dict(zip(QUEUES.values(), waiting, strict=True)), unacked


def pending_ids(redis: Redis) -> set[str]:
    """Collect the ids of all records with a message that is waiting or not acknowledged yet."""
    with redis.pipeline(transaction=True) as pipe:
        for queue in QUEUES.values():
            pipe.lrange(f"{PREFIX}{queue}", 0, -1)
        pipe.hvals(f"{PREFIX}unacked")
        *waiting, unacked = pipe.execute()
    messages = [json.loads(text) for queue in waiting for text in queue] + [json.loads(text)[0] for text in unacked]
    return {_argument(message) for message in messages}


def _argument(message: dict[str, Any]) -> str:
    """Decode the id in a message of Celery's protocol 2, whose body is `[args, kwargs, embed]`."""
    arguments, _, _ = json.loads(base64.b64decode(message["body"]))
    return str(arguments[0])
