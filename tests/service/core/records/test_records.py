"""Records on a real Redis: reading, listing, events, and removal."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import CollectorRegistry
from redis import Redis

from service.core.connections import connect_async
from service.core.object_keys import Kind, kind_of, new_id
from service.core.record import TERMINAL, Record, State
from service.core.records.events import read_events, read_record
from service.core.records.store import RecordStore
from service.core.scripts import EVENT_SECONDS, LAST_EVENTS, NAMESPACE
from service.core.telemetry import Telemetry
from tests.support.records import KEY, brought_to, create, found
from tests.support.servers import MakeSettings, RedisServer


def test_what_is_written_is_read(store: RecordStore) -> None:
    record = create(store, notes=["made grey → RGB"], stored_bytes=7)
    store.claims.claim(record, "w")
    store.claims.report(record, "w", {"stage": "train", "completed": 3, "rate": 0.5}, {"rejected": {}})
    store.claims.save_checkpoint(record, "w", {"step": 3, "samples": []})
    read = found(store, record)
    assert (read.notes, read.request, read.stored_bytes) == (["made grey → RGB"], {"name": "tile"}, 7)
    assert (read.progress, read.counts) == ({"stage": "train", "completed": 3, "rate": 0.5}, {"rejected": {}})
    assert read.checkpoint == {"step": 3, "samples": []}
    store.claims.succeed(record, "w", {"card": {"é": [1.5, None]}}, 70)
    read = found(store, record)
    assert (read.result, read.stored_bytes, read.lease_until) == ({"card": {"é": [1.5, None]}}, 70, None)


def test_a_coroutine_reads_the_same(store: RecordStore, redis_settings: MakeSettings) -> None:
    record = brought_to(store, State.SUCCEEDED)

    async def read() -> tuple[Record | None, Record | None]:
        async with connect_async(redis_settings(), Telemetry(CollectorRegistry()), 4) as client:
            return await read_record(client, record), await read_record(client, "adp_none")

    assert asyncio.run(read()) == (store.records.get(record), None)


def test_pages_neither_skip_nor_repeat_while_records_are_added(store: RecordStore) -> None:
    old = [create(store) for _ in range(7)]
    create(store, key="k2")
    page, cursor = store.records.page(Kind.ADAPTER, KEY, limit=3)
    seen = [record.id for record in page]
    while cursor:
        create(store)
        page, cursor = store.records.page(Kind.ADAPTER, KEY, after=cursor, limit=3)
        seen += [record.id for record in page]
    assert seen == sorted(old, reverse=True)


def test_a_full_last_page_has_no_cursor(store: RecordStore) -> None:
    for _ in range(3):
        create(store)
    assert store.records.page(Kind.ADAPTER, KEY, limit=3)[1] is None
    assert store.records.page(Kind.JOB, KEY) == ([], None)


def test_lists_follow_the_state(store: RecordStore) -> None:
    first, second = create(store), create(store)
    store.claims.claim(first, "w")
    assert [record.id for record in store.records.page(Kind.ADAPTER, KEY, state=State.QUEUED)[0]] == [second]
    assert [record.id for record in store.records.page(Kind.ADAPTER, KEY, state=State.RUNNING)[0]] == [first]
    assert store.records.page(Kind.ADAPTER, KEY, state=State.FAILED)[0] == []


def test_the_queue_moves_up(store: RecordStore) -> None:
    queue = [create(store) for _ in range(3)]
    create(store, Kind.JOB)
    assert [store.states.queue_position(record) for record in queue] == [0, 1, 2]
    assert store.states.oldest_queued(Kind.ADAPTER) == pytest.approx(found(store, queue[0]).created_at, abs=0.01)
    store.claims.claim(queue[0], "w")
    assert [store.states.queue_position(record) for record in queue] == [None, 0, 1]
    assert store.states.ids(Kind.ADAPTER, State.QUEUED) == queue[1:]
    counts = {cell: number for cell, number in store.states.counts().items() if number}
    assert counts == {
        (Kind.ADAPTER, State.QUEUED): 2,
        (Kind.ADAPTER, State.RUNNING): 1,
        (Kind.JOB, State.QUEUED): 1,
    }


def test_events_tell_every_change_and_resume_anywhere(store: RecordStore) -> None:
    record = create(store)
    store.claims.claim(record, "w")
    store.claims.report(record, "w", {"completed": 1}, {"accepted": 1})
    store.claims.fail(record, "w", {"code": "usage", "detail": "too dark"})
    events = store.records.events(record)
    assert [event.data["state"] for event in events] == ["queued", "running", "running", "failed"]
    assert [event.data["revision"] for event in events] == [1, 2, 3, 4]
    last = events[-1].data
    assert (last["progress"], last["counts"], last["attempt"]) == ({"completed": 1}, {"accepted": 1}, 1)
    assert last["error"] == {"code": "usage", "detail": "too dark"}
    for number, event in enumerate(events):
        assert store.records.events(record, after=event.id) == events[number + 1 :]


def test_a_coroutine_waits_for_the_next_event(store: RecordStore, redis_settings: MakeSettings) -> None:
    record = create(store)
    seen = store.records.events(record)

    async def follow() -> list[str]:
        async with connect_async(redis_settings(), Telemetry(CollectorRegistry()), 4) as client:
            assert await read_events(client, record) == seen
            assert await read_events(client, record, seen[-1].id, wait_seconds=0.05) == []
            waiting = asyncio.create_task(read_events(client, record, seen[-1].id, wait_seconds=4))
            await asyncio.sleep(0.05)
            await asyncio.to_thread(store.records.request_cancel, record)
            return [event.data["state"] for event in await waiting]

    assert asyncio.run(follow()) == ["cancelled"]


def test_only_what_has_ended_can_be_removed_and_leaves_nothing(store: RecordStore, redis_client: Redis) -> None:
    for state in State:
        record = brought_to(store, state)
        assert store.records.remove(record) is (state in TERMINAL)
        if state in TERMINAL:
            assert store.records.get(record) is None
            assert store.records.events(record) == []
            assert record not in {listed.id for listed in store.records.page(Kind.ADAPTER, KEY)[0]}
            assert record in store.upkeep.garbage().values()
            assert redis_client.keys(f"{NAMESPACE}*{record}*") == []


def test_records_expire_by_when_they_ended(store: RecordStore) -> None:
    ended = brought_to(store, State.FAILED)
    moment = store.upkeep.now()
    brought_to(store, State.QUEUED)
    assert store.states.ended_before(moment) == [ended]
    assert store.states.ended_before(moment - 60) == []


def test_records_outlive_a_killed_redis(store: RecordStore, redis_server: RedisServer) -> None:
    record = brought_to(store, State.RUNNING)
    before = found(store, record)
    redis_server.kill()
    redis_server.start()
    assert found(store, record) == before
    assert store.claims.report(record, "w", {"completed": 1})


def test_of_a_record_that_has_ended_the_last_events_stay_for_a_while(store: RecordStore, redis_client: Redis) -> None:
    record = brought_to(store, State.RUNNING)
    for step in range(2 * LAST_EVENTS):
        store.claims.report(record, "w", {"stage": "train", "completed": step})
    stream = f"{NAMESPACE}events:{record}"
    assert redis_client.ttl(stream) == -1
    store.claims.succeed(record, "w", {}, 0)
    assert 0 < redis_client.ttl(stream) <= EVENT_SECONDS
    assert len(store.records.events(record)) == LAST_EVENTS
    assert store.records.events(record)[-1].data["state"] == State.SUCCEEDED


def test_ids_of_one_moment_come_in_the_order_of_their_making() -> None:
    ids = [new_id(Kind.JOB) for _ in range(1000)]
    assert ids == sorted(ids)
    assert {kind_of(record) for record in ids} == {Kind.JOB}
