"""What somebody enters in the page is taken whole, kept until it is sent, and sent once."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import httpx2
import pytest
from playwright.sync_api import Browser, Page, Route, expect
from redis import Redis
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.core import api_keys
from service.core.records.store import RecordStore
from service.core.settings import Settings
from service.core.storage import ObjectStore
from tests.service.api.conftest import serving
from tests.service.page.conftest import Asked, opened, serious_findings
from tests.service.page.made import drop, product, trained
from tests.service.page.way import files
from tests.support.servers import MakeSettings
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(300)

DROPS = """(names) => {
  const place = document.querySelector(".drop");
  for (const { name, content } of names) {
    const transfer = new DataTransfer();
    const bytes = Uint8Array.from(atob(content), (c) => c.charCodeAt(0));
    transfer.items.add(new File([bytes], name, { type: "image/png" }));
    place.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
  }
}"""
"""Drops each file by itself, the next one before the page has looked at the last."""


class Losing:
    """A broken proxy before an app: of the first request that creates something, the answer is lost."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.lost = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or self.lost:
            await self._app(scope, receive, send)
            return

        async def lose(message: Message) -> None:
            self.lost += 1

        await self._app(scope, receive, lose)
        await send({"type": "http.response.start", "status": 502, "headers": [(b"content-type", b"text/html")]})
        await send({"type": "http.response.body", "body": b"<h1>Bad Gateway</h1>"})


def filled(page: Page, url: str, *, normals: bool = True) -> None:
    """Open the form of a new adapter, and fill it."""
    page.goto(f"{url}/#/adapters/new")
    page.get_by_label("Name", exact=True).fill("plates")
    page.locator("#files-pairs").set_input_files(files("images", 2))
    page.locator("#files-pairs").set_input_files(files("masks", 2))
    if normals:
        page.locator("#files-normals").set_input_files(files("normals", 2))
    expect(page.locator(".uploads").first.locator("li")).to_have_count(2)
    page.get_by_label("copy-paste").check()


def test_a_form_survives_a_key_that_is_renewed_meanwhile_and_is_then_sent(
    browser: Browser, page: Page, server_settings: MakeSettings, objects: ObjectStore, redis_client: Redis
) -> None:
    key = api_keys.create_key(redis_client, "ada")
    with serving(server_settings()) as url:
        page.goto(url)
        page.get_by_role("textbox", name="API key").fill(key)
        page.get_by_role("button", name="Use this key").click()
        expect(page.get_by_text("From ten photographs to a dataset")).to_be_visible()
        filled(page, url)
        renewed = api_keys.renew_key(redis_client, key.split("_")[1])
        assert renewed
        with httpx2.Client(base_url=f"{url}/v1", headers={"Authorization": f"Bearer {key}"}) as former:
            wait_until(lambda: former.get("/jobs").status_code == 401)
        page.get_by_role("button", name="Train", exact=True).click()
        entered = page.get_by_role("textbox", name="API key")
        expect(entered).to_be_visible()
        entered.fill(key)
        page.get_by_role("button", name="Use this key").click()
        expect(page.get_by_text("does not accept this key")).to_be_visible()
        entered.fill(renewed)
        page.get_by_role("button", name="Use this key").click()
        expect(page.get_by_text("Waiting for a worker")).to_be_visible()
        made = httpx2.get(f"{url}/v1/adapters", headers={"Authorization": f"Bearer {renewed}"}).json()["data"]
        assert [adapter["name"] for adapter in made] == ["plates"]


def test_what_is_sent_again_after_its_answer_was_lost_is_made_once(
    browser: Browser, page: Page, keyless: Settings, store: RecordStore, objects: ObjectStore
) -> None:
    with serving(keyless, Losing) as url, httpx2.Client(base_url=f"{url}/v1") as client:
        filled(page, url)
        page.get_by_role("button", name="Train", exact=True).click()
        expect(page.get_by_role("alert")).to_contain_text("does not answer as it should")
        page.get_by_role("button", name="Train", exact=True).click()
        expect(page.get_by_text("Waiting for a worker")).to_be_visible()
        assert len(client.get("/adapters").json()["data"]) == 1
        # Entered anew, it is another one.
        filled(page, url)
        page.get_by_role("button", name="Train", exact=True).click()
        expect(page.get_by_text("Waiting for a worker")).to_be_visible()
        assert len(client.get("/adapters").json()["data"]) == 2
    with serving(keyless) as url, httpx2.Client(base_url=f"{url}/v1") as client:
        adapter = trained(client, store, "copy-paste", {"hole": 3})
    with serving(keyless, Losing) as url, httpx2.Client(base_url=f"{url}/v1") as client:
        page.goto(f"{url}/#/adapters/{adapter}/generate")
        page.get_by_role("button", name="Generate", exact=True).click()
        expect(page.get_by_role("alert")).to_contain_text("HTTP 502")
        page.get_by_role("button", name="Generate", exact=True).click()
        expect(page.get_by_text("Waiting for a worker")).to_be_visible()
        assert len(client.get("/jobs").json()["data"]) == 1


def test_what_a_gateway_answers_is_no_answer_and_what_was_entered_is_sent_again(
    browser: Browser, page: Page, keyless: Settings
) -> None:
    taken = json.dumps({"code": "idempotency_key_reused", "detail": "This Idempotency-Key was used."})
    answers = [(413, '{"message": "Too big"}'), (200, "<h1>Welcome</h1>"), (422, taken)]
    said = ["HTTP 413", "HTTP 200", "The page's request was taken for another one: try again."]
    keys = []

    def answer(route: Route) -> None:
        keys.append(route.request.headers["idempotency-key"])
        if len(keys) > len(answers):
            route.continue_()
            return
        status, body = answers[len(keys) - 1]
        route.fulfill(status=status, body=body, content_type="application/json")

    with serving(keyless) as url:
        filled(page, url)
        page.route("**/v1/adapters", answer)
        for text in said:
            page.get_by_role("button", name="Train", exact=True).click()
            expect(page.get_by_role("alert")).to_contain_text(text)
        page.get_by_role("button", name="Train", exact=True).click()
        expect(page.get_by_text("Waiting for a worker")).to_be_visible()
        assert len(httpx2.get(f"{url}/v1/adapters").json()["data"]) == 1
    assert [key == keys[0] for key in keys] == [True, True, True, False]


def test_a_late_answer_leaves_those_alone_who_have_gone_elsewhere(
    browser: Browser, page: Page, keyless: Settings, store: RecordStore, objects: ObjectStore
) -> None:
    late: list[Route] = []

    def hold(route: Route) -> None:
        late.append(route)

    with serving(keyless) as url, httpx2.Client(base_url=f"{url}/v1") as client:
        adapter = trained(client, store, "copy-paste", {"hole": 3})
        asked = Asked(page)
        page.goto(f"{url}/#/adapters/{adapter}/generate")
        page.route("**/v1/jobs", hold)
        page.get_by_role("button", name="Generate", exact=True).click()
        expect(page.get_by_role("button", name="Generate", exact=True)).to_be_disabled()
        filled(page, url)
        with page.expect_response("**/v1/jobs") as answered:
            late[0].continue_()
        answered.value.finished()
        page.wait_for_timeout(500)
        assert page.url.endswith("#/adapters/new")
        page.get_by_role("link", name="Jobs").click()
        page.get_by_role("button", name="Train", exact=True).hover()
        assert len(asked.questions) == 1
        assert len(client.get("/jobs").json()["data"]) == 1


def test_nobody_leaves_what_is_not_sent_without_being_asked(browser: Browser, page: Page, keyless: Settings) -> None:
    with serving(keyless) as url:
        asked = Asked(page)
        filled(page, url)
        page.get_by_role("link", name="Jobs").click()
        page.get_by_role("button", name="Train", exact=True).hover()
        assert asked.questions == ["Leave? What you have entered or drawn here is not sent yet and would be lost."]
        expect(page.locator(".uploads").first.locator("li")).to_have_count(2)
        assert page.url.endswith("#/adapters/new")
        page.evaluate("setTimeout(() => location.reload())")
        page.wait_for_timeout(500)
        expect(page.locator(".uploads").first.locator("li")).to_have_count(2)
        assert asked.questions[1:] == ["beforeunload"]
        page.get_by_role("button", name="Train", exact=True).click()
        expect(page.get_by_text("Waiting for a worker")).to_be_visible()
        page.reload()
        expect(page.get_by_text("Waiting for a worker")).to_be_visible()
        assert len(asked.questions) == 2

        filled(page, url)
        asked.accepts = True
        page.get_by_role("link", name="Jobs").click()
        expect(page.get_by_text("No jobs yet.")).to_be_visible()
        assert len(asked.questions) == 3


def test_strokes_are_not_thrown_away_without_asking(browser: Browser, page: Page, keyless: Settings) -> None:
    with serving(keyless) as url:
        asked = Asked(page)
        page.goto(f"{url}/#/adapters/new")
        page.locator("#files-pairs").set_input_files(files("images", 1))
        draw = page.get_by_role("button", name="Draw the mask")
        draw.click()
        painter = page.get_by_role("dialog", name="Mask for")
        covered = page.locator(".painter footer [role=status]")
        expect(covered).to_have_text("Mask: 0 %")
        page.keyboard.press("Escape")
        expect(painter).to_have_count(0)
        assert asked.questions == []
        draw.click()
        expect(painter.locator("canvas")).to_be_focused()
        for pressed in ("ArrowRight", " ", "Escape", "Escape", "Escape"):
            page.keyboard.press(pressed)
        page.get_by_role("button", name="Close").click()
        page.get_by_role("button", name="Cancel").click()
        expect(painter).to_be_visible()
        expect(covered).not_to_have_text("Mask: 0 %")
        assert asked.questions == 5 * ["Throw away what you have drawn?"]
        asked.accepts = True
        page.keyboard.press("Escape")
        expect(painter).to_have_count(0)
        expect(page.get_by_text("no mask yet", exact=True)).to_be_visible()


def test_what_is_dropped_at_once_is_all_taken(browser: Browser, page: Page, keyless: Settings) -> None:
    names = [path for kind in ("images", "normals") for path in files(kind, 3)]
    content = [{"name": path.name, "content": base64.b64encode(path.read_bytes()).decode()} for path in names]
    with serving(keyless) as url:
        page.goto(f"{url}/#/adapters/new")
        expect(page.locator(".drop").first).to_be_visible()
        page.evaluate(DROPS, content)
        expect(page.get_by_role("heading", name="Photographs and masks (6)")).to_be_visible()


def test_what_cannot_be_read_or_is_no_picture_is_named(
    browser: Browser, page: Page, keyless: Settings, tmp_path: Path
) -> None:
    folder = product(tmp_path / "plate")
    (folder / "test/crack/002.heic").write_bytes(b"")
    (folder / "test/.DS_Store").write_bytes(b"")
    with serving(keyless) as url:
        page.goto(f"{url}/#/adapters/new")
        drop(page, folder, tmp_path / "gone.png")
        place = page.locator(".drop").first
        expect(place.get_by_role("alert")).to_have_text("The browser cannot read this, so it was not taken: gone.png")
        expect(place.get_by_role("status")).to_have_text(
            "Left out, because they are not PNG, JPEG, BMP, TIFF or WebP: plate/test/crack/002.heic"
        )
        drop(page, tmp_path / "lost.png")
        expect(place.get_by_role("alert")).to_contain_text("lost.png, gone.png")
        expect(page.get_by_text("Defect types: break (2), crack (2).")).to_be_visible()
        assert serious_findings(page) == []


def request_of(page: Page, client: httpx2.Client) -> dict[str, Any]:
    """Send the form on the page; what the adapter was asked for with."""
    page.get_by_role("button", name="Train", exact=True).click()
    expect(page.get_by_text("Waiting for a worker")).to_be_visible()
    request: dict[str, Any] = client.get(f"/adapters/{page.url.rpartition('/')[2]}").json()["request"]
    return request


def test_a_folder_is_chosen_by_the_keyboard_and_held_out_photographs_have_types_too(
    browser: Browser, page: Page, keyless: Settings, tmp_path: Path
) -> None:
    folder, held = product(tmp_path / "plate"), product(tmp_path / "held", upside_down=True)
    with serving(keyless) as url, httpx2.Client(base_url=f"{url}/v1") as client:
        page.goto(f"{url}/#/adapters/new")
        page.get_by_label("Name", exact=True).fill("plates")
        page.get_by_label("or choose a folder").first.set_input_files(folder)
        expect(page.get_by_text("Defect types: break (2), crack (2).")).to_be_visible()
        expect(page.get_by_role("heading", name="Good parts (2)")).to_be_visible()
        page.get_by_text("Photographs kept back to measure with").click()
        page.get_by_role("button", name="Held-out photographs and masks or choose a folder").set_input_files(held)
        expect(page.get_by_text("Each type is measured by itself")).to_be_visible()
        train = page.get_by_role("button", name="Train", exact=True)
        expect(train).to_be_enabled()
        for number in range(2):
            page.get_by_role("button", name=f"Remove: held/test/crack/00{number}.png").click()
        expect(page.get_by_role("alert")).to_contain_text("No photograph of crack is kept back")
        expect(train).to_be_disabled()
        expect(train).to_have_accessible_description(
            "First say which defect types the photographs show that are kept back."
        )
        one = page.get_by_label("Defect type of held/test/break/000.png")
        one.fill("scratch")
        expect(
            page.get_by_text("There are no photographs of this type to train on, only of: break, crack.")
        ).to_be_visible()
        one.fill("crack")
        expect(train).to_be_enabled()
        assert serious_findings(page) == []
        types = [{"name": "break", "pairs": 1}, {"name": "crack", "pairs": 1}]
        assert request_of(page, client)["held_out"] == {"pairs": 2, "normals": 2, "defects": types}

        page.goto(f"{url}/#/adapters/new")
        page.get_by_label("Name", exact=True).fill("plates")
        page.locator("#files-pairs-folder").set_input_files(folder)
        page.get_by_text("Photographs kept back to measure with").click()
        page.locator("#files-held-folder").set_input_files(held)
        page.get_by_role("button", name="Measure all together").click()
        expect(page.get_by_text("All types are measured together.")).to_be_visible()
        assert request_of(page, client)["held_out"] == {"pairs": 4, "normals": 2}


def test_what_a_disabled_button_waits_for_is_said(
    browser: Browser, page: Page, keyless: Settings, store: RecordStore, objects: ObjectStore
) -> None:
    with serving(keyless) as url, httpx2.Client(base_url=f"{url}/v1") as client:
        page.goto(f"{url}/#/adapters/new")
        train = page.get_by_role("button", name="Train", exact=True)
        expect(train).to_be_disabled()
        expect(train).to_have_accessible_description("First add photographs of the defect.")
        adapter = trained(client, store, "anomalydiffusion", {"hole": 3, "dent": 3})
        page.goto(f"{url}/#/adapters/{adapter}/generate")
        for name in ("dent", "hole"):
            page.get_by_role("spinbutton", name=name, exact=True).fill("0")
        generate = page.get_by_role("button", name="Generate", exact=True)
        expect(generate).to_be_disabled()
        expect(generate).to_have_accessible_description("Ask for at least one pair.")
        page.get_by_role("spinbutton", name="hole", exact=True).fill("1")
        expect(generate).to_be_enabled()
        expect(generate).to_have_accessible_description("")


def test_a_refusal_is_in_german_with_the_server_s_words_below(browser: Browser, keyless: Settings) -> None:
    with serving(keyless) as url, opened(browser, "de-DE") as page:
        page.goto(f"{url}/#/jobs/job_00000000000000000000000000")
        refused = page.get_by_role("alert")
        expect(refused).to_contain_text("Diesen Auftrag gibt es nicht, oder nicht mehr.")
        expect(refused.locator("[lang=en]")).to_contain_text("job")
        filled_in_german = page.get_by_label("Name", exact=True)
        page.goto(f"{url}/#/adapters/new")
        filled_in_german.fill("Platten")
        page.locator("#files-pairs").set_input_files(files("images", 1))
        page.get_by_role("button", name="Trainieren").click()
        expect(page.get_by_role("alert").first).to_contain_text("Der Server hat Fehler im Gesendeten gefunden")
        assert serious_findings(page) == []
