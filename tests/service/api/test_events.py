from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from itertools import islice
from typing import Any

import httpx2
import pytest
from redis import Redis

from service.core.records.store import RecordStore
from service.core.settings import Settings
from tests.service.api.conftest import serving, trained
from tests.service.api.uploads import pairs

Event = tuple[str, dict[str, Any]]


def coming(client: httpx2.Client, path: str, after: str | None = None) -> Generator[Event, None, None]:
    """Events as they come, until the stream ends."""
    event_id = ""
    headers = {"Last-Event-ID": after} if after else {}
    with client.stream("GET", path, headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            if line.startswith("id: "):
                event_id = line.removeprefix("id: ")
            elif line.startswith("data: "):
                yield event_id, json.loads(line.removeprefix("data: "))


def received(client: httpx2.Client, path: str, after: str | None = None, most: int | None = None) -> list[Event]:
    """All events, or so many at most."""
    with closing(coming(client, path, after)) as events:
        return list(islice(events, most))


def test_events_come_as_they_happen_until_the_end(client: httpx2.Client, store: RecordStore) -> None:
    """Each thing happens only when the event of the one before has come."""
    adapter = client.post("/v1/adapters", data={"name": "a"}, files=pairs()).json()["id"]

    def happening() -> Iterator[object]:
        yield store.claims.claim(adapter, "worker")
        for step in (1, 2):
            progress = {"stage": "train", "completed": step, "total": 2, "request": {"large": True}}
            yield store.claims.report(adapter, "worker", progress)
        yield store.claims.succeed(adapter, "worker", {}, 0)

    events, happens = [], happening()
    for _, data in coming(client, f"/v1/adapters/{adapter}/events"):
        events.append(data)
        assert next(happens, True)
    assert [data["state"] for data in events] == ["queued", "running", "running", "running", "succeeded"]
    assert events[2]["progress"] == {"stage": "train", "completed": 1, "total": 2}


def test_a_stream_resumes_after_the_event_that_was_seen_last(client: httpx2.Client, store: RecordStore) -> None:
    adapter = trained(client, store)
    path = f"/v1/adapters/{adapter}/events"
    seen = received(client, path, most=1)
    rest = received(client, path, after=seen[-1][0])
    assert [data["state"] for _, data in seen + rest] == ["queued", "running", "succeeded"]
    assert client.get(path, headers={"Last-Event-ID": rest[-1][0]}).status_code == 204


@pytest.mark.parametrize("event_id", ["x", "-", "1", "99999999999999999999999-0", "18446744073709551616-1"])
def test_an_impossible_event_id_is_refused(client: httpx2.Client, store: RecordStore, event_id: str) -> None:
    answer = client.get(f"/v1/adapters/{trained(client, store)}/events", headers={"Last-Event-ID": event_id})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


def test_of_open_streams_each_key_has_its_share_and_all_have_theirs(
    client: httpx2.Client, new_client: Callable[[], httpx2.Client], store: RecordStore, settings: Settings
) -> None:
    adapter = client.post("/v1/adapters", data={"name": "a"}, files=pairs()).json()["id"]
    path = f"/v1/adapters/{adapter}/events"
    other = new_client()
    own = other.post("/v1/adapters", data={"name": "b"}, files=pairs()).json()["id"]
    for shares, code in (((2, 1), "too_many_open"), ((1, 1), "unavailable")):
        narrow = settings.model_copy(update=dict(zip(("max_streams", "max_streams_per_key"), shares, strict=True)))
        with serving(narrow) as url, client.stream("GET", f"{url}{path}") as first:
            lines = first.iter_lines()  # the connection lasts as long as this
            assert next(lines).startswith("retry:")
            asked, asking = (client, path) if code == "too_many_open" else (other, f"/v1/adapters/{own}/events")
            refused = asked.get(f"{url}{asking}")
            assert (refused.status_code, refused.json()["code"]) == (429 if asked is client else 503, code)
            if code == "too_many_open":
                assert len(received(other, f"{url}/v1/adapters/{own}/events", most=1)) == 1
    store.records.request_cancel(adapter)
    with serving(settings.model_copy(update={"max_streams": 1})) as url:
        assert len(received(client, f"{url}{path}")) == 2
        assert len(received(client, f"{url}{path}")) == 2


BEYOND = "9999999999999999999-1"


def test_an_event_id_beyond_the_last_is_the_last(client: httpx2.Client, store: RecordStore) -> None:
    adapter = client.post("/v1/adapters", data={"name": "a"}, files=pairs()).json()["id"]
    path = f"/v1/adapters/{adapter}/events"
    with client.stream("GET", path, headers={"Last-Event-ID": BEYOND}) as answer:
        lines = answer.iter_lines()
        assert next(lines).startswith("retry:")
        store.records.request_cancel(adapter)
        assert [json.loads(line[6:])["state"] for line in lines if line.startswith("data: ")] == ["cancelled"]
    assert client.get(path, headers={"Last-Event-ID": BEYOND}).status_code == 204


def test_a_stream_ends_with_its_record_though_no_event_tells_of_the_end(
    client: httpx2.Client, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.api.events._PING_SECONDS", 0.1)
    adapter = client.post("/v1/adapters", data={"name": "a"}, files=pairs()).json()["id"]
    with client.stream("GET", f"/v1/adapters/{adapter}/events") as answer:
        lines = answer.iter_lines()
        assert next(lines).startswith("retry:")
        redis.hset(f"pairforge:record:{adapter}", "state", "cancelled")
        told = [json.loads(line[6:])["state"] for line in lines if line.startswith("data: ")]
    assert told == ["queued"]
