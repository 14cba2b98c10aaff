"""The review in a real browser: decisions outlast other tabs, files, re-sorting and deleted jobs."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import httpx2
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from service.core import object_keys
from service.core.records.store import RecordStore
from service.core.settings import Settings
from service.core.storage import ObjectStore
from tests.service.api.conftest import serving
from tests.service.page.conftest import Asked, serious_findings
from tests.service.page.made import finish, finished_job, trained
from tests.service.page.way import files

pytestmark = pytest.mark.timeout(300)


def told(page: Page, text: str) -> None:
    expect(page.locator(".sum")).to_have_text(text)


def pair(page: Page, number: int) -> Locator:
    return page.get_by_role("button", name=re.compile(f"^Pair {number}, score"))


def press(page: Page, number: int, *keys: str) -> None:
    pair(page, number).focus()
    for key in keys:
        page.keyboard.press(key)


def test_two_tabs_decide_on_the_same_pairs_and_the_newest_decision_counts(
    browser: Browser, page: Page, keyless: Settings, store: RecordStore, objects: ObjectStore, tmp_path: Path
) -> None:
    job = finished_job(store, objects, tmp_path, 4)
    with serving(keyless) as url:
        other = page.context.new_page()
        for tab in (page, other):
            tab.goto(f"{url}/#/jobs/{job}/review")
            told(tab, "0 approved, 0 rejected, 4 open of 4")
        press(page, 0, "a", "a")
        told(other, "2 approved, 0 rejected, 2 open of 4")
        press(other, 1, "r", "r")
        told(page, "1 approved, 2 rejected, 1 open of 4")
        press(page, 0, "u")
        told(other, "0 approved, 2 rejected, 2 open of 4")
        # Written by a tab of which this one has not heard: an older decision and one on another pair.
        kept = f"pairforge-review-{job}"
        long_ago = "2001-01-01T00:00:00Z"
        unheard = [[f"{job}/{at}", {"decision": "approved", "at": long_ago}] for at in (1, 3)]
        page.evaluate("([name, text]) => localStorage.setItem(name, text)", [kept, json.dumps(unheard)])
        press(page, 0, "a")
        for tab in (page, other):
            told(tab, "2 approved, 2 rejected, 0 open of 4")
            tab.reload()
            told(tab, "2 approved, 2 rejected, 0 open of 4")


def test_a_file_of_decisions_does_not_undo_newer_ones(
    browser: Browser, page: Page, keyless: Settings, store: RecordStore, objects: ObjectStore, tmp_path: Path
) -> None:
    job = finished_job(store, objects, tmp_path, 4)
    file = tmp_path / "review.json"
    with serving(keyless) as url:
        page.goto(f"{url}/#/jobs/{job}/review")
        press(page, 0, "a", "r", "a")
        with page.expect_download() as downloading:
            page.get_by_role("button", name="Save the decisions as a file").click()
        downloading.value.save_as(file)
        press(page, 0, "r")
        page.get_by_label("Load decisions from a file").set_input_files(file)
        said = "Decisions taken: 0. Kept as they are, because they are as new here or newer: 3."
        expect(page.get_by_text(said)).to_be_visible()
        told(page, "1 approved, 2 rejected, 1 open of 4")
        later = {
            "approved": [{"candidate": 1, "at": "2100-01-01T00:00:00Z"}, {"candidate": 3, "at": "2001-01-01T00:00:00Z"}]
        }
        file.write_text(json.dumps(later))
        page.get_by_label("Load decisions from a file").set_input_files(file)
        expect(page.get_by_text("Decisions taken: 2.")).to_be_visible()
        told(page, "3 approved, 1 rejected, 0 open of 4")
        # What a person decides now counts, whatever clock the file was written by.
        press(page, 1, "r")
        page.reload()
        told(page, "2 approved, 2 rejected, 0 open of 4")
        # What has no time that can be read is as old as the file.
        file.write_text(json.dumps([{"candidate": 0, "at": None}, {"candidate": 3, "at": "yesterday"}]))
        page.get_by_label("Load decisions from a file").set_input_files(file)
        expect(page.get_by_text("Decisions taken: 2.")).to_be_visible()
        told(page, "3 approved, 1 rejected, 0 open of 4")


def test_a_mask_that_was_drawn_is_not_taken_back_without_asking(
    browser: Browser, page: Page, keyless: Settings, store: RecordStore, objects: ObjectStore, tmp_path: Path
) -> None:
    job = finished_job(store, objects, tmp_path, 3)
    mask = base64.b64encode(files("masks", 1)[0].read_bytes()).decode()
    file = tmp_path / "review.json"
    file.write_text(json.dumps([{"candidate": 0, "mask": mask}, {"candidate": 1}]))
    with serving(keyless) as url:
        asked = Asked(page)
        page.goto(f"{url}/#/jobs/{job}/review")
        page.get_by_label("Load decisions from a file").set_input_files(file)
        told(page, "2 approved, 0 rejected, 1 open of 3")
        press(page, 0, "u")
        page.get_by_role("button", name="Approve: Pair 0").click()
        press(page, 1, "u")
        told(page, "1 approved, 0 rejected, 2 open of 3")
        assert asked.questions == 2 * ["Throw away what you have drawn?"]
        asked.accepts = True
        press(page, 0, "u")
        told(page, "0 approved, 0 rejected, 3 open of 3")


def test_the_same_pair_stays_in_focus_and_open_when_others_come_before_it(
    browser: Browser, page: Page, keyless: Settings, store: RecordStore, objects: ObjectStore, tmp_path: Path
) -> None:
    with serving(keyless) as url, httpx2.Client(base_url=f"{url}/v1") as client:
        adapter = trained(client, store, "copy-paste", {"hole": 3})
        job = str(client.post("/jobs", json={"adapter_id": adapter, "num_pairs": 3}).json()["id"])
        finish(store, objects, tmp_path, job, 3 * [None])
        page.goto(f"{url}/#/jobs/{job}/review")
        press(page, 0, "a")
        page.get_by_role("combobox", name="Sort by").select_option("best score first")
        expect(page.locator(".tile .open[tabindex='0']")).to_have_accessible_name(re.compile("^Pair 1, score"))
        press(page, 2, "r")
        page.get_by_role("button", name="Make 1 new pair").click()
        expect(page.get_by_role("link", name="1 new pair is being made")).to_be_visible()
        press(page, 1, "Enter")
        expect(page.get_by_role("dialog", name="Pair 1")).to_be_visible()
        follower = next(each["id"] for each in client.get("/jobs").json()["data"] if each["id"] != job)
        finish(store, objects, tmp_path, follower, 3 * [None], first=3)
        told(page, "1 approved, 1 rejected, 4 open of 6")
        expect(page.get_by_role("dialog", name="Pair 1")).to_be_visible()
        page.keyboard.press("a")
        told(page, "2 approved, 1 rejected, 3 open of 6")
        page.keyboard.press("Escape")
        expect(pair(page, 1)).to_be_focused()
        # Where the pair leaves the list by its decision, the next one comes.
        page.get_by_role("combobox", name="Show").select_option("open")
        press(page, 5, "Enter", "a")
        expect(page.get_by_role("dialog", name="Pair 4")).to_be_visible()
        page.keyboard.press("r")
        expect(page.get_by_role("dialog", name="Pair 3")).to_be_visible()
        page.keyboard.press("a")
        expect(page.get_by_role("dialog")).to_have_count(0)
        told(page, "4 approved, 2 rejected, 0 open of 6")


def test_the_large_view_is_stepped_through_and_the_pair_it_ends_at_is_in_focus(
    browser: Browser, page: Page, keyless: Settings, store: RecordStore, objects: ObjectStore, tmp_path: Path
) -> None:
    job = finished_job(store, objects, tmp_path, 6)
    with serving(keyless) as url:
        page.goto(f"{url}/#/jobs/{job}/review")
        press(page, 0, "Enter")
        for number in range(3):
            expect(page.get_by_role("dialog", name=f"Pair {number}")).to_be_visible()
            page.keyboard.press("ArrowRight")
        expect(page.get_by_role("dialog", name="Pair 3")).to_be_visible()
        # Keys mean the pair also after its outline was hidden.
        page.get_by_role("dialog").get_by_role("checkbox", name="Outline").uncheck()
        page.keyboard.press("a")
        told(page, "1 approved, 0 rejected, 5 open of 6")
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)
        expect(pair(page, 3)).to_be_focused()
        page.keyboard.press("u")
        told(page, "0 approved, 0 rejected, 6 open of 6")


def test_pairs_under_a_filter_are_decided_by_key_from_the_first_on(
    browser: Browser, page: Page, keyless: Settings, store: RecordStore, objects: ObjectStore, tmp_path: Path
) -> None:
    job = finished_job(store, objects, tmp_path, 5)
    with serving(keyless) as url:
        page.goto(f"{url}/#/jobs/{job}/review")
        page.get_by_role("combobox", name="Show").select_option("open")
        pair(page, 0).focus()
        for decided in range(1, 4):
            page.keyboard.press("a")
            told(page, f"{decided} approved, 0 rejected, {5 - decided} open of 5")
            expect(pair(page, decided)).to_be_focused()


def test_the_pair_in_focus_stays_where_the_list_is_scrolled(
    browser: Browser, page: Page, keyless: Settings, store: RecordStore, objects: ObjectStore, tmp_path: Path
) -> None:
    job = finished_job(store, objects, tmp_path, 200)
    with serving(keyless) as url:
        page.goto(f"{url}/#/jobs/{job}/review")
        press(page, 0, "ArrowRight")
        page.locator(".grid").hover()
        page.mouse.wheel(0, 4000)
        expect(pair(page, 108)).to_be_in_viewport()
        expect(pair(page, 1)).to_be_focused()
        page.keyboard.press("a")
        expect(pair(page, 2)).to_be_focused()
        expect(pair(page, 2)).to_be_in_viewport()


def test_what_is_left_of_a_series_is_reviewed_and_exported_when_jobs_of_it_were_deleted(
    browser: Browser, page: Page, keyless: Settings, store: RecordStore, objects: ObjectStore, tmp_path: Path
) -> None:
    with serving(keyless) as url, httpx2.Client(base_url=f"{url}/v1") as client:
        adapter = trained(client, store, "copy-paste", {"hole": 3})
        first = str(client.post("/jobs", json={"adapter_id": adapter, "num_pairs": 2}).json()["id"])
        finish(store, objects, tmp_path, first, [None, None])
        series = [first]
        for _ in range(3):
            asked = {"num_pairs": 2}
            series.append(str(client.post(f"/jobs/{series[-1]}/replacements", json=asked).json()["id"]))
            finish(store, objects, tmp_path, series[-1], [None, None], first=2 * len(series) - 2)
        asked_for: list[str] = []
        page.on("request", lambda request: asked_for.append(request.url))
        page.goto(f"{url}/#/jobs/{series[2]}/review")
        told(page, "0 approved, 0 rejected, 8 open of 8")
        # No pair of a job that follows is there to be decided on before the first job's review is.
        assert not [address for address in asked_for if f"{series[2]}/pairs?limit=60" in address]
        assert page.url.endswith(f"#/jobs/{first}/review")
        page.get_by_role("button", name="approve all shown").click()
        press(page, 7, "r")
        told(page, "7 approved, 1 rejected, 0 open of 8")

        assert client.delete(f"/jobs/{series[1]}").status_code == 204
        page.reload()
        told(page, "5 approved, 1 rejected, 0 open of 6")
        expect(page.get_by_text(f"Deleted, with their pairs: {series[1]}.")).to_be_visible()
        assert delivered(page, client) == [(first, 2), (series[2], 2), (series[3], 1)]

        assert client.delete(f"/jobs/{first}").status_code == 204
        for entry in (first, series[2], series[3]):
            page.goto(f"{url}/#/jobs/{entry}/review")
            told(page, "3 approved, 1 rejected, 0 open of 4")
            expect(page.get_by_text(f"Deleted, with their pairs: {first}, {series[1]}.")).to_be_visible()
        assert serious_findings(page) == []
        assert delivered(page, client) == [(series[2], 2), (series[3], 1)]
        page.goto(f"{url}/#/jobs/{first}/review")
        page.get_by_label("Pairs wanted").fill("4")
        page.get_by_role("button", name="Make 1 new pair").click()
        following = page.get_by_role("link", name="1 new pair is being made")
        expect(following).to_be_visible()
        made = str(following.get_attribute("href")).rpartition("/")[2]
        follows = client.get(f"/jobs/{made}").json()["request"]["follows"]
        assert (follows["job_id"], follows["first_job_id"]) == (series[3], first)
        page.goto(f"{url}/#/jobs/{object_keys.new_id(object_keys.Kind.JOB)}/review")
        expect(page.get_by_role("alert")).to_contain_text("This job does not exist, or not any more.")


def delivered(page: Page, client: httpx2.Client) -> list[tuple[str, int]]:
    """Make the dataset; its jobs, each with its number of approved pairs."""
    page.get_by_label("Your name").fill("Ada")
    page.get_by_role("button", name="Make the dataset").click()
    expect(page.get_by_text("Waiting for a worker")).to_be_visible()
    selection = client.get(f"/jobs/{page.url.rpartition('/')[2]}").json()["request"]["selection"]
    return [(each["job_id"], each["approved"]) for each in selection["jobs"]]
