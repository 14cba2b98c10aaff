"""Messages through a real Redis, taken as Celery's workers take them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from celery import Celery
from kombu import Consumer, Queue
from kombu.exceptions import OperationalError
from kombu.message import Message
from kombu.transport.redis import Mutex
from redis import Redis

from service.core.messaging import Dispatcher, celery_config, pending_ids, renew_delivery, workers_for
from service.core.object_keys import Kind, new_id
from service.core.record import Record
from service.core.records.store import RecordStore
from service.core.settings import Settings
from tests.support.servers import MakeSettings, RedisServer

ADAPTER, JOB = new_id(Kind.ADAPTER), new_id(Kind.JOB)


class Receiver:
    """Takes one message of a queue at a time and acknowledges none by itself."""

    def __init__(self, settings: Settings, queue: str) -> None:
        self._app = Celery(set_as_current=False)
        self._app.conf.update(celery_config(settings))
        self._connection = self._app.connection_for_read()
        self.taken: list[Message] = []
        self._consumer = Consumer(
            self._connection, [Queue(queue)], accept=["json"], on_message=self.taken.append, prefetch_count=1
        )
        self._consumer.consume()

    def listen(self, seconds: float, meanwhile: Callable[[], object] = lambda: None) -> list[Message]:
        """The messages taken so far, after waiting for the next for some time."""
        before, end = len(self.taken), time.monotonic() + seconds
        while len(self.taken) == before and time.monotonic() < end:
            meanwhile()
            try:
                self._connection.drain_events(timeout=0.1)
            except TimeoutError:
                continue
        return self.taken

    def enter_restoring(self) -> None:
        """Take the lock under which lost messages are put back, and never give it up."""
        channel = self._consumer.channel
        Mutex(channel.client, channel.unacked_mutex_key, channel.unacked_mutex_expire).__enter__()

    def close(self) -> None:
        self._connection.close()
        self._app.close()


@pytest.fixture
def receiver(redis_settings: MakeSettings) -> Iterator[Callable[[str], Receiver]]:
    """Makes receivers of a queue; messages come back after four seconds."""
    made: list[Receiver] = []

    def make(queue: str) -> Receiver:
        made.append(Receiver(redis_settings(lease_seconds=4.0), queue))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_a_message_carries_an_id_to_its_queue(
    dispatcher: Dispatcher, receiver: Callable[[str], Receiver], redis_client: Redis
) -> None:
    dispatcher.send_training(ADAPTER)
    dispatcher.send_generation(JOB, 2)
    (training,) = receiver("train").listen(5)
    (generation,) = receiver("generate").listen(5)
    assert (training.headers["task"], training.payload[0]) == ("pairforge.train", [ADAPTER])
    assert (generation.headers["task"], generation.payload[0]) == ("pairforge.generate", [JOB])


def test_a_message_is_pending_until_it_is_acknowledged(
    dispatcher: Dispatcher, receiver: Callable[[str], Receiver], redis_client: Redis
) -> None:
    assert pending_ids(redis_client) == set()
    dispatcher.send_training(ADAPTER)
    dispatcher.send_generation(JOB, 2)
    assert pending_ids(redis_client) == {ADAPTER, JOB}
    (message,) = receiver("train").listen(5)
    assert pending_ids(redis_client) == {ADAPTER, JOB}
    message.ack()
    assert pending_ids(redis_client) == {JOB}


def test_a_message_comes_back_once_nobody_renews_its_delivery(
    dispatcher: Dispatcher, receiver: Callable[[str], Receiver], redis_client: Redis
) -> None:
    dispatcher.send_training(ADAPTER)
    (message,) = receiver("train").listen(5)
    tag = message.delivery_tag
    other = receiver("train")
    assert not other.listen(8, meanwhile=lambda: renew_delivery(redis_client, tag))
    assert len(other.listen(40)) == 1


def test_a_worker_killed_while_it_looks_for_lost_messages_holds_the_others_off_only_shortly(
    dispatcher: Dispatcher, receiver: Callable[[str], Receiver]
) -> None:
    dispatcher.send_training(ADAPTER)
    killed = receiver("train")
    killed.listen(5)
    killed.enter_restoring()
    assert len(receiver("train").listen(40)) == 1


def test_what_was_acknowledged_cannot_be_renewed(
    dispatcher: Dispatcher, receiver: Callable[[str], Receiver], redis_client: Redis
) -> None:
    dispatcher.send_training(ADAPTER)
    (message,) = receiver("train").listen(5)
    assert renew_delivery(redis_client, message.delivery_tag)
    message.ack()
    assert not renew_delivery(redis_client, message.delivery_tag)
    assert pending_ids(redis_client) == set()


def test_each_kind_of_record_gets_the_messages_it_needs(
    store: RecordStore, dispatcher: Dispatcher, redis_client: Redis
) -> None:
    def created(kind: Kind, **request: object) -> Record:
        return store.submissions.create(kind, new_id(kind), "k1", request)[0]

    dispatcher.send(created(Kind.ADAPTER, name="tile"))
    dispatcher.send(created(Kind.JOB, num_pairs=40))
    assert redis_client.llen("pairforge:celery:train") == 1
    assert redis_client.llen("pairforge:celery:generate") == 3


def test_a_job_is_offered_to_no_more_workers_than_have_work() -> None:
    settings = Settings(pairs_per_shard=16, max_shards=4)
    assert [workers_for(pairs, settings) for pairs in (1, 16, 17, 64, 1000)] == [1, 1, 2, 4, 4]


def test_a_broker_that_is_down_is_told_in_seconds(dispatcher: Dispatcher, redis_server: RedisServer) -> None:
    redis_server.kill()
    start = time.monotonic()
    with pytest.raises(OperationalError):
        dispatcher.send_training(ADAPTER)
    assert time.monotonic() - start < 10
    redis_server.start()
    dispatcher.send_training(ADAPTER)
