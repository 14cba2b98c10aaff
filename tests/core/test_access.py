"""API keys on a real Redis."""

from __future__ import annotations

from redis import Redis

from service.core.access import create_key, list_keys, renew_key, revoke_key, verify


def test_a_key_opens_until_it_is_revoked(redis_client: Redis) -> None:
    key, other = create_key(redis_client, "line 3"), create_key(redis_client, "line 3")
    key_id = verify(redis_client, key)
    assert key_id is not None
    assert verify(redis_client, other) not in {None, key_id}
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
    assert verify(redis_client, renewed) == before[0].id
    assert verify(redis_client, key) is None
    assert list_keys(redis_client) == before


def test_a_revoked_key_is_not_renewed(redis_client: Redis) -> None:
    create_key(redis_client, "line 3")
    (key,) = list_keys(redis_client)
    revoke_key(redis_client, key.id)
    assert renew_key(redis_client, key.id) is None
    assert list_keys(redis_client) == []


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
