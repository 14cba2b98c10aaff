"""`pairforge up` as a user runs it, with the real servers; each stack takes seconds to start, so tests share it."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import pytest

from service.client import ApiError, Client, Resource
from service.embedded.folder import find_running
from service.embedded.processes import marked
from tests.service.embedded.running import SAMPLED, Up, small_adapter
from tests.support.scraping import scrape
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(600)


def pairforge(*arguments: str | Path, url: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from model.cli import main; main()", *map(str, arguments)]
    environment = {**os.environ, "PAIRFORGE_URL": url}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.fixture(scope="module")
def stack(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with Up(tmp_path_factory.mktemp("stacks") / "shared", tiny_base) as up:
        yield up


@pytest.fixture(scope="module")
def client(stack: Up) -> Iterator[Client]:
    with stack.client() as client:
        yield client


@pytest.fixture(scope="module")
def adapter(client: Client) -> Resource:
    return client.wait(small_adapter(client).id)


def test_an_adapter_and_a_dataset_come_through_the_client(client: Client, adapter: Resource, tmp_path: Path) -> None:
    assert adapter.state == "succeeded"
    told: list[Resource] = []
    job = client.wait(client.create_job(adapter.id, 2, **SAMPLED).id, told.append)
    assert job.state == "succeeded"
    assert job.counts is not None
    assert job.counts["accepted"] == 2
    assert [resource.id for resource in told] == [job.id] * len(told)
    assert any(resource.progress for resource in told)
    with ZipFile(client.download(job.id, tmp_path / "dataset.zip")) as file:
        assert {"images/000001.png", "masks/000001.png", "manifest.jsonl"} <= set(file.namelist())
    client.download_preview(job.id, tmp_path / "preview.png")
    client.download_adapter(adapter.id, tmp_path / "adapter")
    assert json.loads((tmp_path / "adapter" / "card.json").read_text())["defect"] == "defect"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "dataset.zip", "preview.png"]
    client.delete(job.id)
    with pytest.raises(ApiError) as refused:
        client.get(job.id)
    assert refused.value.status == 404


def test_a_creation_with_the_same_key_is_made_once(client: Client) -> None:
    first, second = (small_adapter(client, steps=5, idempotency_key="twice") for _ in range(2))
    assert first.id == second.id
    client.cancel(first.id)
    assert client.wait(first.id, timeout=200).state in {"cancelled", "succeeded"}


def test_a_refusal_names_everything_that_is_wrong(client: Client, adapter: Resource) -> None:
    with pytest.raises(ApiError) as refused:
        client.create_job(adapter.id, 0, steps=0, formats=["voc"])
    assert refused.value.status == 422
    told = "\n".join(refused.value.problems)
    assert all(name in told for name in ("num_pairs", "steps", "formats"))


def test_lists_go_on_where_they_ended(client: Client, adapter: Resource) -> None:
    client.wait(small_adapter(client, steps=1).id)
    found: list[str] = []
    after: str | None = None
    while True:
        page = client.list_adapters(state="succeeded", after=after, limit=1)
        found += [resource.id for resource in page.data]
        after = page.next_cursor
        if after is None:
            break
    assert adapter.id in found
    assert len(found) == len(set(found)) >= 2


def test_the_commands_do_what_the_client_does(stack: Up, adapter: Resource, tmp_path: Path) -> None:
    (tmp_path / "limits.json").write_text(json.dumps(SAMPLED["limits"]))
    sampling = ("-n", "1", "--steps", "2", "--set", "batch=1", "--set", "mask_method=threshold", "--seed", "5")
    made = pairforge(
        *("jobs", "create", adapter.id, *sampling, "--limits", tmp_path / "limits.json", "--wait", "--json"),
        url=stack.url,
    )
    assert made.returncode == 0, made.stderr
    events = [json.loads(line) for line in made.stdout.splitlines()]
    assert {event["event"] for event in events} == {"progress", "result"}
    job = events[-1]["id"]
    assert job in pairforge("jobs", "list", url=stack.url).stdout
    assert '"succeeded"' in pairforge("jobs", "show", job, url=stack.url).stdout
    assert pairforge("jobs", "download", job, "--out", tmp_path / "d.zip", url=stack.url).returncode == 0
    assert pairforge("inspect", tmp_path / "d.zip").returncode == 0
    cancelled = pairforge("jobs", "cancel", job, url=stack.url)
    assert (cancelled.returncode, cancelled.stdout) == (2, "")
    assert "error: " in cancelled.stderr
    assert pairforge("jobs", "rm", job, url=stack.url).returncode == 0


@pytest.mark.usefixtures("adapter")
def test_prometheus_finds_all_metrics(stack: Up) -> None:
    running = find_running(stack.data_dir)
    assert running is not None
    assert stack.ready["worker_metrics"] == running.worker_metrics
    api, workers = json.loads((stack.data_dir / "prometheus-targets.json").read_text())
    assert (api["labels"], workers["labels"]) == ({"job": "pairforge-api"}, {"job": "pairforge-worker"})
    assert [f"http://{target}" for target in api["targets"]] == [stack.url]
    assert [f"http://{target}/metrics" for target in workers["targets"]] == running.worker_metrics
    assert scrape(f"{stack.url}/metrics").value("workers") == 1
    (worker,) = running.worker_metrics
    # Counted a moment after its record tells it.
    wait_until(lambda: scrape(worker).value("records_finished_total", kind="adapter", outcome="succeeded"))


def test_a_second_stack_in_the_same_folder_is_refused(stack: Up) -> None:
    second = pairforge("up", "--data-dir", stack.data_dir)
    assert second.returncode == 2
    assert f"(process {stack.process.pid}) already runs in {stack.data_dir}" in second.stderr


def test_what_is_secret_is_for_its_owner_only(stack: Up) -> None:
    for path in (stack.data_dir, *stack.data_dir.rglob("*")):
        # Logs hold no secrets, and no other user can enter their folder.
        assert path.parent.name == "logs" or not stat.S_IMODE(path.stat().st_mode) & 0o077, path
    running = find_running(stack.data_dir)
    assert running is not None
    password = running.environment["PAIRFORGE_S3_SECRET_ACCESS_KEY"]
    for pid in marked(stack.data_dir.resolve()):
        assert password.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()


def test_a_process_that_dies_is_started_again(stack: Up, client: Client, adapter: Resource) -> None:
    for name in (b"redis-server", b"rclone", b"uvicorn"):
        (victim,) = (
            pid for pid in marked(stack.data_dir.resolve()) if name in Path(f"/proc/{pid}/cmdline").read_bytes()
        )
        os.kill(victim, signal.SIGKILL)
        assert "was killed by SIGKILL; it restarts" in stack.event("note")["text"]
        # The client itself waits for what is away for a moment.
        assert client.get(adapter.id).state == "succeeded"


@pytest.mark.parametrize("how", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.faults)])
def test_the_end_of_a_stack_leaves_no_process_and_the_next_goes_on(
    tiny_base: Path, tmp_path: Path, how: signal.Signals
) -> None:
    with Up(tmp_path / "data", tiny_base, "--require-keys") as first:
        with first.client() as client, pytest.raises(ApiError) as refused:
            client.list_jobs()
        assert refused.value.status == 401
        made = pairforge("keys", "create", "me", "--data-dir", first.data_dir, "--json")
        key = json.loads(made.stdout)["key"]
        with Client(first.url, key) as client:
            adapter = small_adapter(client, steps=100_000, checkpoint_every=2)
            _passed_checkpoints(client, adapter)
        assert first.end(how) == (0 if how is signal.SIGTERM else -how)
    assert find_running(first.data_dir) is None
    with Up(first.data_dir, tiny_base, "--require-keys") as second, Client(second.url, key) as client:
        _passed_checkpoints(client, adapter)
        client.cancel(adapter.id)
        assert client.wait(adapter.id, timeout=200).state == "cancelled"
        assert second.end(signal.SIGINT) == 0


def _passed_checkpoints(client: Client, resource: Resource) -> None:
    """Wait until a running training has passed its first checkpoints."""

    def passed() -> bool:
        found = client.get(resource.id)
        assert not found.finished, found.error
        told = found.progress
        return found.state == "running" and told is not None and told.stage == "train" and told.completed > 4

    wait_until(passed)
