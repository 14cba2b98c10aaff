"""API keys on a real Redis."""

from __future__ import annotations

import time

import pytest
from redis import Redis

from service.core.api_keys import LOCAL, adopt_records, create_key, list_keys, renew_key, revoke_key, verify
from service.core.errors import UsageError
from service.core.object_keys import Kind, new_id
from service.core.record import State
from service.core.records.store import RecordStore


def test_a_key_opens_until_it_is_revoked(redis_client: Redis) -> None:
    key, other = create_key(redis_client, "line 3"), create_key(redis_client, "line 3")
    found = verify(redis_client, key)
    assert found is not None
    key_id = found.id
    assert verify(redis_client, other) not in {None, found}
    assert [listed.name for listed in list_keys(redis_client)] == ["line 3", "line 3"]
    assert list_keys(redis_client)[0].id == key_id
    assert revoke_key(redis_client, key_id)
    assert not revoke_key(redis_client, key_id)
    assert verify(redis_client, key) is None
    assert verify(redis_client, other) is not None


def test_a_renewed_key_keeps_its_id_and_its_name(redis_client: Redis) -> None:
    key = create_key(redis_client, "line 3")
    before = list_keys(redis_client)
    renewed = renew_key(redis_client, before[0].id)
    assert renewed is not None
    assert verify(redis_client, renewed) == before[0]
    assert verify(redis_client, key) is None
    assert list_keys(redis_client) == before


def test_a_revoked_key_is_not_renewed(redis_client: Redis) -> None:
    create_key(redis_client, "line 3")
    (key,) = list_keys(redis_client)
    revoke_key(redis_client, key.id)
    assert renew_key(redis_client, key.id) is None
    assert list_keys(redis_client) == []


def used(store: RecordStore, key_id: str) -> tuple[set[str], set[str], str | None]:
    """Ids of a key's store, of the cancelled among them, and the bytes they are charged with."""
    every = {record.id for kind in Kind for record in store.records.page(kind, key_id)[0]}
    ended = {record.id for kind in Kind for record in store.records.page(kind, key_id, state=State.CANCELLED)[0]}
    return every, ended, store.redis.hget(f"pairforge:usage:{key_id}", "stored_bytes")


def test_a_key_adopts_what_was_made_without_keys(redis_client: Redis, store: RecordStore) -> None:
    create_key(redis_client, "line 3")
    (key,) = list_keys(redis_client)
    adapter = store.submissions.create(Kind.ADAPTER, new_id(Kind.ADAPTER), LOCAL, {}, stored_bytes=70)[0].id
    job = store.submissions.create(Kind.JOB, new_id(Kind.JOB), LOCAL, {})[0].id
    own = store.submissions.create(Kind.JOB, new_id(Kind.JOB), key.id, {}, stored_bytes=5)[0].id
    store.records.request_cancel(job)
    assert adopt_records(redis_client, LOCAL, key.id) == 2
    assert used(store, key.id) == ({adapter, job, own}, {job}, "75")
    assert used(store, LOCAL) == (set(), set(), None)
    for record in (adapter, own):  # they go on as if they had always been the key's
        store.records.request_cancel(record)
    assert used(store, key.id) == ({adapter, job, own}, {adapter, job, own}, "0")
    assert redis_client.hget(f"pairforge:usage:{key.id}", "active") == "0"
    assert store.records.remove(job)
    assert used(store, key.id)[0] == {adapter, own}


def test_nothing_is_taken_from_a_key_that_works_nor_given_to_none(redis_client: Redis, store: RecordStore) -> None:
    for name in ("line 3", "line 4"):
        create_key(redis_client, name)
    first, second = list_keys(redis_client)
    job = store.submissions.create(Kind.JOB, new_id(Kind.JOB), first.id, {})[0].id
    with pytest.raises(UsageError, match="is a key that is still valid"):
        adopt_records(redis_client, first.id, second.id)
    revoke_key(redis_client, first.id)
    with pytest.raises(UsageError, match=f"no key has the id {first.id}"):
        adopt_records(redis_client, LOCAL, first.id)
    assert adopt_records(redis_client, first.id, second.id) == 1
    assert used(store, second.id)[0] == {job}


def test_a_key_ends_when_it_was_said_to(redis_client: Redis) -> None:
    soon, later = (create_key(redis_client, "x", expires_at=time.time() + seconds) for seconds in (0.5, 60))
    assert verify(redis_client, soon) is not None
    time.sleep(0.6)
    assert verify(redis_client, soon) is None
    assert verify(redis_client, later) is not None
    assert [key.expired for key in list_keys(redis_client)] == [True, False]


def test_secrets_are_not_stored(redis_client: Redis) -> None:
    secret = create_key(redis_client, "line 3").removeprefix("pf_").partition("_")[2]
    assert secret not in str(redis_client.hgetall("pairforge:keys"))


def test_what_is_not_quite_a_key_opens_nothing(redis_client: Redis) -> None:
    key = create_key(redis_client, "line 3")
    start, secret = key[:20], key[20:]
    another_end = "A" if key[-1] != "A" else "B"
    near = [key[:-1], key + "A", key + "\n", " " + key, key[:-1] + another_end, key.upper(), start + "é" * 43]
    for presented in [*near, f"pf_{'0' * 16}_{secret}", secret, start, "", "*"]:
        assert verify(redis_client, presented) is None, presented
    assert verify(redis_client, key)
