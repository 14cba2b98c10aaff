"""Messages to clients' servers: signed, tried again, and only to hosts that are allowed."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2
import pytest
from pydantic import SecretStr

from service.core import webhooks
from service.core.records.store import RecordStore
from service.core.settings import Settings
from tests.service.api.conftest import serving, trained
from tests.service.api.uploads import pairs
from tests.support.waiting import wait_until

SECRET = "shared-secret"


@dataclass
class Receiver:
    """A client's server: what it was sent, and the statuses that it answers in turn, the last for ever."""

    host: str = ""
    statuses: list[int] = field(default_factory=lambda: [204])
    received: list[tuple[dict[str, str], bytes]] = field(default_factory=list)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            found.received.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(found.statuses.pop(0) if len(found.statuses) > 1 else found.statuses[0])
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.host = f"127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield found
    server.shutdown()
    server.server_close()


@pytest.fixture
def telling(settings: Settings, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An API that may send to the receiver, and tries again soon."""
    monkeypatch.setattr(webhooks, "PAUSES", (0.1, 0.1))
    chosen = {"webhook_hosts": f"hooks.example, {receiver.host}", "webhook_secret": SecretStr(SECRET)}
    with serving(settings.model_copy(update=chosen)) as url:
        yield url


def test_the_end_of_a_job_is_told_and_signed(
    telling: str, new_client: Callable[..., httpx2.Client], store: RecordStore, receiver: Receiver
) -> None:
    client = new_client(telling)
    body = {"adapter_id": trained(client, store), "num_pairs": 2, "webhook": f"http://{receiver.host}/ended"}
    job = client.post("/v1/jobs", json=body).json()["id"]
    client.post(f"/v1/jobs/{job}/cancel")
    wait_until(lambda: receiver.received, 60)
    ((headers, sent),) = receiver.received
    assert json.loads(sent) == {"type": "job.cancelled", "data": {"id": job, "state": "cancelled"}}
    assert headers["webhook-id"] == job
    signed = webhooks.signature(SECRET, job, int(headers["webhook-timestamp"]), sent)
    assert headers["webhook-signature"] == signed
    wait_until(lambda: not store.redis.zcard("pairforge:webhooks"), 60)


@pytest.mark.parametrize(("statuses", "tries"), [([500, 302, 204], 3), ([500], 3), ([410], 1)])
def test_what_is_not_taken_is_tried_again_and_given_up_in_the_end(
    telling: str,
    new_client: Callable[..., httpx2.Client],
    store: RecordStore,
    receiver: Receiver,
    statuses: list[int],
    tries: int,
) -> None:
    receiver.statuses = statuses
    client = new_client(telling)
    data = {"name": "a", "webhook": f"http://{receiver.host}/ended"}
    adapter = client.post("/v1/adapters", data=data, files=pairs()).json()["id"]
    client.post(f"/v1/adapters/{adapter}/cancel")
    wait_until(lambda: len(receiver.received) == tries and not store.redis.zcard("pairforge:webhooks"), 60)
    assert {headers["webhook-id"] for headers, _ in receiver.received} == {adapter}


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/",
        "http://hooks.example.evil.example",
        "http://hooks.example@evil.example/",
        "ftp://x",
        "http://[",
    ],
)
def test_only_allowed_hosts_are_called(telling: str, new_client: Callable[..., httpx2.Client], url: str) -> None:
    body = {"adapter_id": f"adp_{'0' * 26}", "num_pairs": 2, "webhook": url}
    answer = new_client(telling).post("/v1/jobs", json=body)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/webhook")


def test_without_a_secret_no_webhook_is_accepted(client: httpx2.Client) -> None:
    data = {"name": "a", "webhook": "https://hooks.example/"}
    answer = client.post("/v1/adapters", data=data, files=pairs())
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/webhook")
    assert "this server sends no webhooks" in answer.json()["detail"]
