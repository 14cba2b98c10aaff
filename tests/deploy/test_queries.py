"""Every expression of the dashboards and the rules, asked of a real Prometheus that watches a stack at work."""

from __future__ import annotations

import contextlib
import json
import math
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from service.client import ApiError, Client
from tests.service.embedded.running import SAMPLED, Up, pictures, small_adapter
from tests.support.servers import Server

pytestmark = pytest.mark.timeout(900)

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
DASHBOARDS = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))
RULES = sorted((DEPLOY / "prometheus" / "rules").glob("*.yml"))

MAY_BE_EMPTY = {
    "DCGM_": "dcgm-exporter needs a GPU",
    "pairforge_gpu_": "needs a GPU",
    "celery_": "celery-exporter is a container",
    "ALERTS": "nothing is wrong",
    'status=~"5.."': "no request fails",
    "pairforge_s3_errors_total": "the object store does not fail",
    "pairforge_redis_memory_max_bytes) > 0": "the stack's Redis has no limit",
    "pairforge_checkpoint_seconds": "a training of four steps stores none",
    "pairforge_training_loss != 0": "a training of four steps may end between two scrapes",
}
"""Parts of expressions that need no series here, and why."""


def expressions() -> Iterator[tuple[str, str]]:
    """Name and text of what panels show, with values for Grafana's variables."""
    for file in DASHBOARDS:
        for panel in json.loads(file.read_text())["panels"]:
            for target in panel.get("targets", []):
                text = target["expr"].replace("$__rate_interval", "1m").replace("$__range", "5m")
                yield f"{file.stem}: {panel['title']} {target['refId']}", re.sub(r"\$\w+", ".*", text)


def rules(key: str) -> list[tuple[str, str]]:
    """Name and expression of rules; `key` is "alert" or "record"."""
    groups = [group for file in RULES for group in yaml.safe_load(file.read_text())["groups"]]
    return [(rule[key], rule["expr"]) for group in groups for rule in group["rules"] if key in rule]


SHOWN = list(expressions())
RECORDED = rules("record")
SELECTED = sorted(
    {
        selector
        for _, expression in rules("alert")
        for selector in re.findall(r"\b(?:pairforge[\w:]*|process_\w+|up|DCGM_\w+)(?:\{.*?\})?", expression)
    }
)
"""What alerts look at: their conditions do not hold here, so that they give nothing themselves."""


class Prometheus(Server):
    """Prometheus with the committed rules, scraping a stack every second."""

    def __init__(self, folder: Path, targets: Path) -> None:
        scraped = {"job_name": "stack", "file_sd_configs": [{"files": [str(targets)], "refresh_interval": "1s"}]}
        configuration = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(file) for file in RULES],
            "scrape_configs": [scraped],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))

        def command(port: int) -> list[str]:
            options = {
                "config.file": folder / "prometheus.yml",
                "storage.tsdb.path": folder / "data",
                "web.listen-address": f"127.0.0.1:{port}",
            }
            return ["prometheus", *(f"--{name}={value}" for name, value in options.items())]

        super().__init__(command, {}, folder)
        self.began = time.time()

    def wait_until_ready(self) -> None:
        """Until it answers queries: while it starts, it says 503."""
        deadline = time.monotonic() + 60
        while not httpx2.get(f"http://127.0.0.1:{self.port}/-/ready", timeout=30, trust_env=False).is_success:
            assert time.monotonic() < deadline, "Prometheus is not ready"
            time.sleep(0.2)

    def get(self, path: str, **parameters: str | float) -> Any:
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}"
        deadline = time.monotonic() + 60
        while (answer := httpx2.get(url, params=parameters, timeout=30, trust_env=False)).status_code == 503:
            assert time.monotonic() < deadline, "Prometheus stays unavailable"
            time.sleep(0.2)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    def series(self, expression: str) -> list[dict[str, Any]]:
        """What the expression gave in each second since the start."""
        asked = {"query": expression, "start": self.began, "end": time.time(), "step": 1}
        found: list[dict[str, Any]] = self.get("query_range", **asked)["result"]
        return found

    def values(self, expression: str) -> list[float]:
        """All numbers that the expression gave since the start."""
        found = [float(value) for one in self.series(expression) for _, value in one["values"]]
        return [value for value in found if not math.isnan(value)]

    def wait_for(self, expression: str) -> None:
        """Until the expression gives something now."""
        deadline = time.monotonic() + 60
        while not self.get("query", query=expression)["result"]:
            assert time.monotonic() < deadline, f"{expression} gives nothing"
            time.sleep(0.2)


def work(client: Client, folder: Path) -> None:
    """An adapter, a job, and an upload that is refused."""
    broken = folder / "broken.png"
    broken.write_bytes(b"no picture")
    with contextlib.suppress(ApiError):
        client.create_adapter([broken], pictures("masks")[:1], name="hole")
    adapter = client.wait(small_adapter(client).id)
    job = client.wait(client.create_job(adapter.id, 2, **SAMPLED).id)
    assert (adapter.state, job.state) == ("succeeded", "succeeded")


@pytest.fixture(scope="module")
def prometheus(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """After an adapter and a job were made under its eyes."""
    if shutil.which("prometheus") is None:
        pytest.skip("Prometheus is not installed (Debian's package prometheus)")
    folder = tmp_path_factory.mktemp("prometheus")
    with Up(folder / "stack", tiny_base, lease_seconds=60) as up:
        server = Prometheus(folder, folder / "stack" / "prometheus-targets.json")
        server.start()
        try:
            server.wait_for("count(up == 1) == 2")
            with up.client() as client:
                work(client, folder)
            server.wait_for('sum(pairforge_records_finished_total{outcome="succeeded"}) == 2')
            # Two more rounds: rules have seen it, and rates have two points.
            server.wait_for(f"min(timestamp(up)) > {time.time() + 2}")
            yield server
        finally:
            server.stop()


def test_api_and_worker_are_scraped_under_their_names(prometheus: Prometheus) -> None:
    found = prometheus.get("query", query="up")["result"]
    assert sorted((one["metric"]["job"], one["value"][1]) for one in found) == [
        ("pairforge-api", "1"),
        ("pairforge-worker", "1"),
    ]


@pytest.mark.parametrize(("name", "expression"), SHOWN, ids=[name for name, _ in SHOWN])
def test_a_panel_shows_data(prometheus: Prometheus, name: str, expression: str) -> None:
    assert prometheus.values(expression) or any(part in expression for part in MAY_BE_EMPTY)


@pytest.mark.parametrize("name", [name for name, _ in RECORDED])
def test_a_recording_rule_records(prometheus: Prometheus, name: str) -> None:
    assert prometheus.values(name)


@pytest.mark.parametrize("selector", SELECTED)
def test_an_alert_looks_at_something_that_is_there(prometheus: Prometheus, selector: str) -> None:
    # A loss that is no number would be left out, but is none here.
    assert prometheus.values(selector) or any(part in selector for part in MAY_BE_EMPTY)


@pytest.mark.parametrize("part", MAY_BE_EMPTY)
def test_what_may_be_empty_is_asked_for(part: str) -> None:
    assert any(part in text for text in [*SELECTED, *(expression for _, expression in SHOWN)])


def test_every_rule_can_be_evaluated(prometheus: Prometheus) -> None:
    groups = prometheus.get("rules")["groups"]
    health = {rule["name"]: (rule["health"], rule.get("lastError", "")) for group in groups for rule in group["rules"]}
    assert health == dict.fromkeys([name for name, _ in [*rules("alert"), *RECORDED]], ("ok", ""))


def test_a_stack_that_is_well_raises_no_alarm(prometheus: Prometheus) -> None:
    assert prometheus.series('ALERTS{alertstate="firing"}') == []
