"""The committed dashboards are those that the code makes, and Grafana and people can make sense of them."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
import yaml

from deploy.grafana.boards.all import BOARDS, FOLDER, written

PROVISIONING = FOLDER.parent / "provisioning"
RENDERED = [board.rendered() for board in BOARDS]
PANELS = [(board["uid"], panel) for board in RENDERED for panel in board["panels"] if panel["type"] != "row"]


def test_the_committed_files_are_what_the_code_makes() -> None:
    assert {file.name: file.read_text() for file in FOLDER.iterdir()} == written()


@pytest.mark.parametrize("board", RENDERED, ids=[board["uid"] for board in RENDERED])
def test_panels_have_numbers_of_their_own_and_do_not_overlap(board: dict[str, Any]) -> None:
    numbers = [panel["id"] for panel in board["panels"]]
    assert len(set(numbers)) == len(numbers)
    taken: set[tuple[int, int]] = set()
    for place in (panel["gridPos"] for panel in board["panels"]):
        cells = set(
            itertools.product(
                range(place["x"], place["x"] + place["w"]),
                range(place["y"], place["y"] + place["h"]),
            )
        )
        assert place["x"] + place["w"] <= 24
        assert taken.isdisjoint(cells)
        taken |= cells


@pytest.mark.parametrize(("board", "panel"), PANELS, ids=[f"{uid}: {panel['title']}" for uid, panel in PANELS])
def test_a_panel_says_what_it_shows(board: str, panel: dict[str, Any]) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    assert panel["description"].endswith(".")
    assert defaults["unit"]
    assert defaults["noValue"]
    assert panel["targets"]


def test_rates_follow_the_step_of_the_graph() -> None:
    windows = {
        window
        for _, panel in PANELS
        for target in panel["targets"]
        for window in re.findall(r"\[(.*?)\]", target["expr"])
    }
    assert windows == {"$__rate_interval", "$__range"}


def test_totals_bear_a_worker_that_starts_again() -> None:
    """Counters begin at 0 with each start, so nothing shows one, or a sum of them, as it is."""
    for _, panel in PANELS:
        for target in panel["targets"]:
            assert not re.search(r"\b\w+_total\b(\{[^}]*\})?(?!\{|\[|\w)", target["expr"]), panel["title"]


def test_every_variable_is_declared_where_it_is_used() -> None:
    for board in RENDERED:
        declared = {variable["name"] for variable in board["templating"]["list"]}
        used = set(re.findall(r"\$\{?([a-z]+)", str(board["panels"])))
        assert used == declared, board["uid"]


def test_links_lead_from_each_dashboard_to_all() -> None:
    tags = [link["tags"] for board in RENDERED for link in board["links"]]
    assert len(tags) == len(RENDERED)
    assert all(set(wanted) <= set(board["tags"]) for wanted in tags for board in RENDERED)


def test_grafana_finds_its_data_and_its_dashboards() -> None:
    (source,) = yaml.safe_load((PROVISIONING / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")
    scraped = yaml.safe_load((FOLDER.parents[1] / "prometheus" / "prometheus.yml").read_text())["global"]
    assert source["jsonData"]["timeInterval"] == scraped["scrape_interval"]
    (provider,) = yaml.safe_load((PROVISIONING / "dashboards" / "pairforge.yml").read_text())["providers"]
    image = (FOLDER.parents[1] / "Dockerfile.servers").read_text()
    assert f" deploy/grafana/dashboards {provider['options']['path']}\n" in image
