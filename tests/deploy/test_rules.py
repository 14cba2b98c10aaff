"""Prometheus' configuration, recording rules and alerts, judged by promtool and by what must hold for every alert."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.grafana.boards.all import BOARDS

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
FOLDER = DEPLOY / "prometheus"
RULES = sorted((FOLDER / "rules").glob("*.yml"))
TESTS = sorted((FOLDER / "tests").glob("*.yml"))


def rules(key: str) -> dict[str, dict[str, Any]]:
    """Rules by name; `key` is "alert" or "record"."""
    groups = [group for file in RULES for group in yaml.safe_load(file.read_text())["groups"]]
    return {rule[key]: rule for group in groups for rule in group["rules"] if key in rule}


ALERTS = rules("alert")


def promtool(*arguments: str | Path) -> str:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (Debian's package prometheus)")
    run = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def test_prometheus_accepts_its_configuration() -> None:
    told = promtool("check", "config", FOLDER / "prometheus.yml")
    assert f"{len(RULES)} rule files found" in told


def test_the_rules_do_what_their_tests_say() -> None:
    told = promtool("test", "rules", *TESTS)
    assert told.count("SUCCESS") == len(TESTS)


def test_every_alert_fires_in_one_test_and_keeps_silent_in_another() -> None:
    cases = [
        case
        for file in TESTS
        for test in yaml.safe_load(file.read_text())["tests"]
        for case in test.get("alert_rule_test", [])
    ]
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == ALERTS.keys()
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} == ALERTS.keys()


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_how_urgent_it_is_and_what_it_means(name: str) -> None:
    alert = ALERTS[name]
    assert alert["labels"]["severity"] in {"critical", "warning"}
    assert set(alert["annotations"]) == {"summary", "description", "runbook"}
    assert alert["annotations"]["runbook"] == f"deploy/RUNBOOK.md#{name.lower()}"


def test_the_runbook_has_a_paragraph_for_every_alert_and_for_no_other() -> None:
    text = (DEPLOY / "RUNBOOK.md").read_text()
    section = re.split(r"^## ", text.partition("## Alerts\n")[2], flags=re.MULTILINE)[0]
    paragraphs = {
        heading: body.strip()
        for heading, body in re.findall(r"^### (\w+)\n(.*?)(?=^### |\Z)", section, re.MULTILINE | re.DOTALL)
    }
    assert paragraphs.keys() == ALERTS.keys()
    assert all(paragraphs.values())


def test_the_panels_that_the_runbook_names_are_there() -> None:
    text = " ".join((DEPLOY / "RUNBOOK.md").read_text().split())
    named = set(re.findall(r"\*([^*→]+) → ([^*→]+)\*", text))
    shown = {(board.title, panel.title) for board in BOARDS for row in board.rows for panel in row.panels}
    assert text.count("→") == len(re.findall(r"\*[^*→]+ → [^*→]+\*", text))
    assert named - shown == {("Status", "Targets")}, "pages of Prometheus itself are named in the same way"


def test_every_recorded_series_is_used() -> None:
    boards = "".join(file.read_text() for file in sorted((DEPLOY / "grafana" / "dashboards").glob("*.json")))
    alerts = "".join(alert["expr"] for alert in ALERTS.values())
    assert [name for name in rules("record") if name not in boards + alerts] == []
