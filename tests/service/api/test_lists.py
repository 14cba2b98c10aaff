"""Lists are short, and can be filtered; a single record shows everything."""

from __future__ import annotations

import httpx2
import pytest

from service.core import object_keys
from service.core.records.store import RecordStore
from tests.service.api.conftest import trained
from tests.service.api.uploads import pairs

CURVE = [[5 * step, 0.5] for step in range(1, 1001)]


@pytest.fixture
def long_trained(client: httpx2.Client, store: RecordStore) -> str:
    """An adapter whose training took five thousand steps."""
    adapter = str(client.post("/v1/adapters", data={"name": "long"}, files=pairs()).json()["id"])
    assert store.claims.claim(adapter, "worker")
    card = {"version": "1", "loss_curve": CURVE, "held_out_curve": CURVE[:10], "steps": 5000}
    result = {"card": card, "loss": CURVE, "bytes": 10, "request": {}, "files": [], "samples": {}}
    assert store.claims.succeed(adapter, "worker", result | {"artifact": object_keys.artifact(adapter, "worker")}, 10)
    return adapter


def test_a_list_has_no_curves_cards_and_notes(client: httpx2.Client, long_trained: str) -> None:
    (listed,) = client.get("/v1/adapters").json()["data"]
    assert {"loss", "card", "samples", "notes"}.isdisjoint(listed)
    whole = client.get(f"/v1/adapters/{long_trained}").json()
    assert listed == {name: value for name, value in whole.items() if name in listed}
    assert len(client.get("/v1/adapters").content) < 4000


def test_curves_have_enough_points_for_a_picture_and_all_on_request(client: httpx2.Client, long_trained: str) -> None:
    short = client.get(f"/v1/adapters/{long_trained}")
    for curve in (short.json()["loss"], short.json()["card"]["loss_curve"]):
        assert len(curve) <= 200
        assert curve[-1] == CURVE[-1]
        assert [point for point in CURVE if point in curve] == curve
    assert short.json()["card"]["held_out_curve"] == CURVE[:10]
    whole = client.get(f"/v1/adapters/{long_trained}?curve=whole")
    assert whole.json()["loss"] == whole.json()["card"]["loss_curve"] == CURVE
    assert whole.headers["etag"] != short.headers["etag"]


def test_jobs_are_listed_by_adapter_and_state(client: httpx2.Client, store: RecordStore) -> None:
    first, second = trained(client, store), trained(client, store)

    def job(adapter: str) -> str:
        return str(client.post("/v1/jobs", json={"adapter_id": adapter, "num_pairs": 2}).json()["id"])

    jobs = [job(first if number % 2 else second) for number in range(6)]
    for cancelled in jobs[:3]:
        client.post(f"/v1/jobs/{cancelled}/cancel")

    def found(**query: object) -> list[str]:
        seen, cursor = list[str](), None
        while True:
            page = client.get(
                "/v1/jobs", params={"limit": 1, "cursor": cursor, **query} if cursor else {"limit": 1, **query}
            ).json()
            seen += [each["id"] for each in page["data"]]
            if (cursor := page["next_cursor"]) is None:
                return seen

    assert found(adapter_id=second) == sorted(jobs[::2], reverse=True)
    assert found(adapter_id=second, state="cancelled") == sorted([jobs[0], jobs[2]], reverse=True)
    assert found(adapter_id=first, state="queued") == sorted([jobs[3], jobs[5]], reverse=True)
    assert found(adapter_id=first, state="failed") == []
    assert client.delete(f"/v1/jobs/{jobs[0]}").status_code == 204
    assert found(adapter_id=second) == sorted([jobs[2], jobs[4]], reverse=True)
