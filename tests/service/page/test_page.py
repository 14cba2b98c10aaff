"""The page in a real browser: what needs the API alone, and no worker."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, FilePayload, Page, expect
from redis import Redis
from starlette.types import ASGIApp, Receive, Scope, Send

from service.cli.files import approvals
from service.client import Client
from service.core import api_keys, object_keys
from service.core.bases import BaseFacts, announce
from service.core.object_keys import Kind
from service.core.options.methods import BOUNDED
from service.core.records.store import RecordStore
from service.core.settings import Settings
from service.core.storage import ObjectStore
from tests.service.api.conftest import serving
from tests.service.page.conftest import opened, serious_findings
from tests.service.page.made import drop, finish, finished_job, product, trained
from tests.service.page.way import files
from tests.support.servers import MakeSettings

pytestmark = pytest.mark.timeout(300)

PAIRS = 1000
PREFIX = "/tools/pairforge"
TRANSFER = """(files) => {
  const transfer = new DataTransfer();
  for (const { name, content } of files) {
    transfer.items.add(new File([Uint8Array.from(atob(content), (c) => c.charCodeAt(0))], name, { type: "image/png" }));
  }
  return transfer;
}"""
"""What a browser hands over when files are dropped."""

IN_VIEW = 80
"""More tiles than that are never in the document, however many pairs there are."""


def test_a_refusal_is_shown_at_the_file_it_is_about(browser: Browser, page: Page, keyless: Settings) -> None:
    images, masks = files("images", 3), files("masks", 3)
    with serving(keyless) as url:
        page.goto(f"{url}/#/adapters/new")
        good = [{"name": path.name, "mimeType": "image/png", "buffer": path.read_bytes()} for path in images]
        masked = [
            {"name": f"{path.stem}_mask.png", "mimeType": "image/png", "buffer": path.read_bytes()} for path in masks
        ]
        masked[1]["buffer"] = good[0]["buffer"][:200]
        page.locator("#files-pairs").set_input_files([*good, *masked])
        page.get_by_label("Name", exact=True).fill("plates")
        page.get_by_role("button", name="Train").click()
        cards = page.locator(".uploads li")
        expect(cards.nth(1).get_by_role("alert")).to_contain_text(masked[1]["name"])
        expect(cards.nth(0).get_by_role("alert")).to_have_count(0)
        assert serious_findings(page) == []
        assert httpx2.get(f"{url}/v1/adapters").json()["data"] == []


def test_files_that_are_dropped_together_are_matched_by_name_and_by_look(
    browser: Browser, page: Page, keyless: Settings
) -> None:
    dropped = [
        {"name": name, "content": base64.b64encode(path.read_bytes()).decode()}
        for name, path in (
            ("007.png", files("masks", 1)[0]),  # of one name with its photograph
            ("007.PNG", files("images", 1)[0]),
            ("008_mask.png", files("masks", 2)[1]),
            ("008.png", files("images", 2)[1]),
            ("009_mask.png", files("masks", 3)[2]),  # of nothing
        )
    ]
    with serving(keyless) as url:
        page.goto(f"{url}/#/adapters/new")
        transfer = page.evaluate_handle(TRANSFER, dropped)
        page.locator(".drop").first.dispatch_event("drop", {"dataTransfer": transfer})
        cards = page.locator(".uploads li")
        expect(cards).to_have_count(3)
        expect(cards.nth(0).get_by_role("img", name="Mask for 007.PNG")).to_be_visible()
        expect(cards.nth(1).get_by_role("img", name="Mask for 008.png")).to_be_visible()
        expect(cards.nth(2).get_by_text("No photograph has a name that fits this mask.")).to_be_visible()
        assert serious_findings(page) == []


def sent(page: Page, client: httpx2.Client) -> dict[str, Any]:
    """The request of the adapter that the form on the page is sent for."""
    page.get_by_role("button", name="Train", exact=True).click()
    expect(page.get_by_text("Waiting for a worker")).to_be_visible()
    request: dict[str, Any] = client.get(f"/adapters/{page.url.rpartition('/')[2]}").json()["request"]
    return request


def test_a_folder_of_several_defect_types_becomes_one_adapter(
    browser: Browser, page: Page, keyless: Settings, tmp_path: Path
) -> None:
    folder = product(tmp_path / "plate")
    broken = folder / "ground_truth/crack/001_mask.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:100])
    with serving(keyless) as url, httpx2.Client(base_url=f"{url}/v1") as client:
        page.goto(f"{url}/#/adapters/new")
        page.get_by_label("Name", exact=True).fill("plates")
        drop(page, folder)
        cards = page.locator(".uploads").first.locator("li")
        expect(page.get_by_text("Defect types: break (2), crack (2).")).to_be_visible()
        expect(page.get_by_role("heading", name="Good parts (2)")).to_be_visible()
        expect(page.get_by_label("Defect", exact=True)).to_have_count(0)
        expect(page.get_by_label("anomalydiffusion")).to_be_checked()
        expect(page.get_by_text("anomalydiffusion is chosen because there are several defect types")).to_be_visible()
        train = page.get_by_role("button", name="Train", exact=True)
        expect(train).to_be_enabled()
        page.get_by_label("dualanodiff").check()
        expect(page.get_by_role("alert")).to_contain_text("dualanodiff learns one defect type, and these are 2")
        expect(train).to_be_disabled()
        assert serious_findings(page) == []
        page.get_by_label("anomalydiffusion").check()
        expect(page.get_by_role("alert")).to_have_count(0)
        expect(train).to_be_enabled()
        first = page.get_by_label("Defect type of plate/test/break/000.png")
        expect(first).to_have_value("break")
        first.fill("")
        expect(cards.first).to_contain_text("Say which defect type this photograph shows.")
        expect(train).to_be_disabled()
        first.fill("crack")
        expect(page.get_by_text("Defect types: break (1), crack (3).")).to_be_visible()
        first.fill("break")
        assert serious_findings(page) == []
        train.click()
        expect(cards.filter(has_text="crack/001.png").get_by_role("alert")).to_contain_text("001_mask.png")
        expect(cards.get_by_role("alert")).to_have_count(1)
        assert client.get("/adapters").json()["data"] == []
        page.get_by_role("button", name="Remove: plate/test/crack/001.png").click()
        broken.write_bytes(whole)
        drop(page, folder)
        expect(page.get_by_text("Defect types: break (2), crack (2).")).to_be_visible()
        request = sent(page, client)
        assert request["defects"] == [{"name": "break", "pairs": 2}, {"name": "crack", "pairs": 2}]
        assert request["defect"] == "break, crack"


def test_files_are_given_a_type_before_they_are_chosen_or_all_show_one(
    browser: Browser, page: Page, keyless: Settings, tmp_path: Path
) -> None:
    folder = product(tmp_path / "plate")
    with serving(keyless) as url, httpx2.Client(base_url=f"{url}/v1") as client:
        page.goto(f"{url}/#/adapters/new")
        page.get_by_label("Name", exact=True).fill("plates")
        page.get_by_label("anomalydiffusion").check()
        for kind in ("break", "crack"):
            page.get_by_label("Defect type of the next files").fill(f"{kind} [1]")
            of_kind = [*(folder / "test" / kind).iterdir(), *(folder / "ground_truth" / kind).iterdir()]
            page.locator("#files-pairs").set_input_files(of_kind)
            expect(page.get_by_text(f"{kind} 1 (2)")).to_be_visible()
        expect(page.get_by_role("button", name="Train", exact=True)).to_be_disabled()
        expect(page.get_by_text("anomalydiffusion makes its pairs on good parts: first add")).to_be_visible()
        assert serious_findings(page) == []
        page.locator("#files-normals").set_input_files([*(folder / "train/good").iterdir()])
        assert sent(page, client)["defects"] == [{"name": "break 1", "pairs": 2}, {"name": "crack 1", "pairs": 2}]

        page.goto(f"{url}/#/adapters/new")
        page.get_by_label("Name", exact=True).fill("plates")
        drop(page, folder)
        page.get_by_role("button", name="All show one type").click()
        expect(page.get_by_role("alert")).to_have_count(0)
        page.get_by_label("Defect", exact=True).fill("scratch")
        request = sent(page, client)
        assert (request["defect"], request["method"]) == ("scratch", "dualanodiff")
        assert "defects" not in request


def test_where_there_are_good_parts_the_method_is_the_one_that_suits_the_base(
    browser: Browser, page: Page, keyless: Settings, store: RecordStore, tmp_path: Path
) -> None:
    announce(store.redis, BaseFacts(keyless.base, 64, 8, method="anomalydiffusion"))
    good = product(tmp_path / "plate") / "train/good"
    with serving(keyless) as url:
        page.goto(f"{url}/#/adapters/new")
        expect(page.get_by_label("dualanodiff")).to_be_checked()
        page.locator("#files-normals").set_input_files([*good.iterdir()])
        expect(page.get_by_label("anomalydiffusion")).to_be_checked()
        page.get_by_label("copy-paste").check()
        page.get_by_role("button", name="Remove: ").first.click()
        expect(page.get_by_label("copy-paste")).to_be_checked()


def test_a_form_shows_what_the_base_recommends_for_the_method(
    browser: Browser, page: Page, keyless: Settings, store: RecordStore, objects: ObjectStore
) -> None:
    recommended = {"steps": 11, "guidance_scale": 1.5}
    announce(store.redis, BaseFacts(keyless.base, 64, 8, training={"steps": 400}, sampling=recommended))
    with serving(keyless) as url, httpx2.Client(base_url=f"{url}/v1") as client:
        for method, guidance in {"dualanodiff": "1.5", "anomalydiffusion": "1"}.items():
            page.goto(f"{url}/#/adapters/{trained(client, store, method, {'hole': 2})}/generate")
            page.get_by_text("All options").click()
            expect(page.get_by_label("guidance scale")).to_have_attribute("placeholder", f"default: {guidance}")
            expect(page.get_by_label("steps", exact=True)).to_have_attribute("placeholder", "default: 11")
        page.goto(f"{url}/#/adapters/new")
        page.get_by_label("anomalydiffusion").check()
        page.get_by_text("All options").click()
        expect(page.get_by_label("steps", exact=True)).to_have_attribute("placeholder", "default: 400")


def payload(name: str, content: bytes) -> FilePayload:
    return {"name": name, "mimeType": "image/png", "buffer": content}


def test_a_mask_is_drawn_by_polygon_zoomed_in_and_by_the_keyboard_alone(
    browser: Browser, page: Page, keyless: Settings
) -> None:
    with serving(keyless) as url:
        page.goto(f"{url}/#/adapters/new")
        page.locator("#files-pairs").set_input_files(files("images", 1))
        page.get_by_role("button", name="Draw the mask").click()
        canvas, covered = page.get_by_role("application"), page.locator(".painter footer [role=status]")
        box = canvas.bounding_box()
        assert box is not None
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.get_by_role("button", name="Polygon").click()
        for right, down in ((0, 0), (60, 0), (60, 60)):
            page.mouse.click(x + right, y + down)
        page.keyboard.press("Enter")
        expect(covered).not_to_have_text("Mask: 0 %")
        whole = share(covered.inner_text())
        page.get_by_role("button", name="Clear").click()
        expect(covered).to_have_text("Mask: 0 %")
        # Nearer, the same triangle on the screen covers less of the picture.
        for _ in range(3):
            page.get_by_role("button", name="Zoom in").click()
        for right, down in ((0, 0), (60, 0), (60, 60)):
            page.mouse.click(x + right, y + down)
        page.mouse.dblclick(x + 60, y + 60)
        expect(covered).not_to_have_text("Mask: 0 %")
        assert share(covered.inner_text()) == pytest.approx(whole / 1.25**6, rel=0.35)
        page.keyboard.press("Control+z")
        expect(covered).to_have_text("Mask: 0 %")
        for key in ("p", "ArrowUp", " ", "ArrowRight", "ArrowRight", " ", "ArrowDown", "ArrowDown", " ", "Enter"):
            page.keyboard.press(key)
        expect(covered).not_to_have_text("Mask: 0 %")


def started(page: Page, client: httpx2.Client) -> dict[str, Any]:
    """The request of the job that the form on the page is sent for."""
    page.get_by_role("button", name="Generate", exact=True).click()
    expect(page.get_by_text("Waiting for a worker.")).to_be_visible()
    request: dict[str, Any] = client.get(f"/jobs/{page.url.rpartition('/')[2]}").json()["request"]
    return request


TRIANGLE = ((0.25, 0.25), (0.75, 0.25), (0.75, 0.75))
"""Corners as shares of a picture: half of the box around them."""


def paint(page: Page, corners: tuple[tuple[float, float], ...]) -> None:
    """Paint an outline on the open good part, which is square."""
    canvas = page.get_by_role("application")
    expect(page.locator(".painter footer [role=status]")).to_have_text("Mask: 0 %")
    box = canvas.bounding_box()
    assert box is not None
    side = 0.96 * min(box["width"], box["height"])
    x, y = box["x"] + (box["width"] - side) / 2, box["y"] + (box["height"] - side) / 2
    page.get_by_role("button", name="Polygon").click()
    for right, down in corners:
        page.mouse.click(x + right * side, y + down * side)
    canvas.press("Enter")


@pytest.mark.parametrize("method", sorted(BOUNDED))
def test_where_defects_may_lie_and_where_not_is_sent_as_it_is_painted(
    browser: Browser, page: Page, keyless: Settings, store: RecordStore, objects: ObjectStore, method: str
) -> None:
    with serving(keyless) as url, httpx2.Client(base_url=f"{url}/v1") as client:
        adapter = trained(client, store, method, {"hole": 3})
        page.goto(f"{url}/#/adapters/{adapter}/generate")
        page.get_by_role("button", name="Paint the place").click()
        paint(page, TRIANGLE)
        assert serious_findings(page) == []
        page.get_by_role("button", name="Use this place").click()
        places = page.locator(".places li")
        expect(places).to_have_count(1)
        name = files("normals", 2)[1].stem
        page.get_by_role("combobox", name="Good part").select_option(label=name)
        page.get_by_role("button", name="Paint the place").click()
        page.get_by_role("radio", name="No defects here").check()
        only = page.get_by_role("checkbox", name="For this photograph only")
        only.check()
        only.press("Enter")  # sends nothing yet
        paint(page, ((0, 0.5), (1, 0.5), (1, 1), (0, 1)))
        page.get_by_role("button", name="Use this place").click()
        expect(places.nth(1)).to_contain_text(f"on {name} only")
        # A place that was a mistake is painted again, or taken away.
        places.nth(1).get_by_role("button", name="Change this place").click()
        expect(page.locator(".painter footer [role=status]")).not_to_have_text("Mask: 0 %")
        page.get_by_role("button", name="Clear").click()
        paint(page, ((0, 0.75), (1, 0.75), (1, 1), (0, 1)))
        page.get_by_role("button", name="Use this place").click()
        page.get_by_role("button", name="Paint the place").click()
        paint(page, TRIANGLE)
        page.get_by_role("button", name="Use this place").click()
        places.nth(2).get_by_role("button", name="Remove").click()
        expect(places).to_have_count(2)
        assert serious_findings(page) == []
        request = started(page, client)
        assert len(client.get("/jobs").json()["data"]) == 1
        (allowed,), (forbidden,) = request["allowed"], request["forbidden"]
        assert ("normal" in allowed, forbidden["normal"]) == (False, name)
        drawn = sent_masks(objects, page.url.rpartition("/")[2])
        whole, lower = drawn[allowed["mask"]], drawn[forbidden["mask"]]
        with Image.open(files("normals", 2)[0]) as part:
            assert whole.shape == lower.shape == part.size[::-1]
        height, width = whole.shape
        assert whole.mean() == pytest.approx(0.125, abs=0.01)
        assert whole[round(0.3 * height), round(0.7 * width)]
        assert not whole[round(0.7 * height), round(0.3 * width)]
        assert lower.mean() == pytest.approx(0.25, abs=0.02)
        assert not lower[: round(0.7 * height)].any()


def sent_masks(objects: ObjectStore, job: str) -> dict[str, np.ndarray]:
    """What was drawn for a job: the name in its record → where it is white."""
    stored = json.loads(objects.get(object_keys.places(job)))["masks"]
    pictures = {name: Image.open(io.BytesIO(base64.b64decode(mask))) for name, mask in stored.items()}
    return {name: np.asarray(picture.convert("L")) > 127 for name, picture in pictures.items()}


def test_pairs_are_asked_for_by_type_where_an_adapter_learned_several(
    browser: Browser, page: Page, keyless: Settings, store: RecordStore, objects: ObjectStore
) -> None:
    with serving(keyless) as url, httpx2.Client(base_url=f"{url}/v1") as client:
        adapter = trained(client, store, "anomalydiffusion", {"hole": 3, "dent": 3, "crack": 3})
        page.goto(f"{url}/#/adapters/{adapter}/generate")
        expect(page.get_by_text("100 pairs together.")).to_be_visible()
        counts = {name: page.get_by_role("spinbutton", name=name, exact=True) for name in ("crack", "dent", "hole")}
        assert [counts[name].input_value() for name in counts] == ["34", "33", "33"]
        for name, count in (("crack", "0"), ("dent", "0"), ("hole", "0")):
            counts[name].fill(count)
        expect(page.get_by_role("button", name="Generate", exact=True)).to_be_disabled()
        counts["hole"].fill("2")
        counts["dent"].fill("5")
        expect(page.get_by_text("7 pairs together.")).to_be_visible()
        assert serious_findings(page) == []
        request = started(page, client)
        assert (request["num_pairs"], request["defects"]) == (7, {"dent": 5, "hole": 2})


def share(text: str) -> float:
    """The number of `Mask: 1.2 %`."""
    return float(text.removeprefix("Mask: ").removesuffix(" %"))


class Behind:
    """An app behind a proxy that takes a prefix away."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = {**scope, "path": scope["path"].removeprefix(PREFIX), "raw_path": b""}
        await self._app(scope, receive, send)


def test_a_key_is_entered_once_and_kept_for_the_tab_also_behind_a_prefix(
    browser: Browser, page: Page, server_settings: MakeSettings, objects: ObjectStore, redis_client: Redis
) -> None:
    key = api_keys.create_key(redis_client, "ada")
    with serving(server_settings(), Behind) as url:
        page.goto(f"{url}{PREFIX}/")
        entered = page.get_by_role("textbox", name="API key")
        expect(entered).to_be_visible()
        assert serious_findings(page) == []
        entered.fill("wrong")
        page.get_by_role("button", name="Use this key").click()
        expect(page.get_by_text("does not accept this key")).to_be_visible()
        entered.fill(key)
        page.get_by_role("button", name="Use this key").click()
        expect(page.get_by_text("From ten photographs to a dataset")).to_be_visible()
        page.reload()
        expect(page.get_by_text("From ten photographs to a dataset")).to_be_visible()
        assert page.evaluate("JSON.stringify(localStorage) + document.cookie").find(key) == -1
        page.get_by_role("button", name="Forget the key").click()
        expect(entered).to_be_visible()


def test_a_server_that_forbids_the_page_has_the_api_alone(keyless: Settings) -> None:
    with serving(keyless.model_copy(update={"page": False})) as url:
        assert httpx2.get(url).status_code == 404
        assert httpx2.get(f"{url}/v1/jobs").status_code == 200


def test_rejected_pairs_are_replaced_by_pairs_of_their_own_type(
    browser: Browser, page: Page, keyless: Settings, store: RecordStore, objects: ObjectStore, tmp_path: Path
) -> None:
    with serving(keyless) as url, httpx2.Client(base_url=f"{url}/v1") as client:
        adapter = trained(client, store, "anomalydiffusion", {"hole": 3, "dent": 3, "crack": 3})
        asked = {"adapter_id": adapter, "defects": {"crack": 3, "hole": 2}}
        job = str(client.post("/jobs", json=asked).json()["id"])
        finish(store, objects, tmp_path, job, ["crack", "hole", "crack", "hole", "crack"])
        page.goto(f"{url}/#/jobs/{job}/review")
        page.get_by_role("button", name=re.compile("^Pair 0, score")).focus()
        for key in ("r", "a", "r", "r"):
            page.keyboard.press(key)
        expect(page.get_by_text("2 missing: 0 approved, 1 still open.")).to_be_visible()
        expect(page.get_by_text("1 missing: 1 approved, 0 still open.")).to_be_visible()
        expect(page.get_by_label("Pairs wanted: dent")).to_have_value("0")
        page.get_by_label("Pairs wanted: hole").fill("3")
        expect(page.get_by_text("2 missing: 1 approved, 0 still open.")).to_be_visible()
        assert serious_findings(page) == []
        page.get_by_role("button", name="Make 4 new pairs").click()
        following = page.get_by_role("link", name="4 new pairs are being made")
        expect(following).to_be_visible()
        made = str(following.get_attribute("href")).rpartition("/")[2]
        request = client.get(f"/jobs/{made}").json()["request"]
        assert (request["num_pairs"], request["defects"]) == (4, {"crack": 2, "hole": 2})


def test_pairs_that_were_replaced_in_another_tab_are_not_replaced_twice(
    browser: Browser, page: Page, keyless: Settings, store: RecordStore, objects: ObjectStore, tmp_path: Path
) -> None:
    with serving(keyless) as url, httpx2.Client(base_url=f"{url}/v1") as client:
        adapter = trained(client, store, "copy-paste", {"hole": 3})
        job = str(client.post("/jobs", json={"adapter_id": adapter, "num_pairs": 2}).json()["id"])
        finish(store, objects, tmp_path, job, [None, None])
        page.goto(f"{url}/#/jobs/{job}/review")
        page.get_by_role("button", name=re.compile("^Pair 0, score")).focus()
        page.keyboard.press("r")
        again = page.get_by_role("button", name="Make 1 new pair")
        expect(again).to_be_enabled()
        other = client.post(f"/jobs/{job}/replacements", json={"num_pairs": 1}).json()["id"]
        again.click()
        expect(page.get_by_role("alert")).to_contain_text(f"replacements already, job {other}")
        following = page.get_by_role("link", name="1 new pair is being made")
        expect(following).to_have_attribute("href", f"#/jobs/{other}")
        expect(again).to_be_disabled()
        assert len(client.get("/jobs").json()["data"]) == 2


def test_decisions_are_taken_to_another_browser_and_to_a_script_by_a_file(
    browser: Browser, page: Page, keyless: Settings, store: RecordStore, objects: ObjectStore, tmp_path: Path
) -> None:
    job = finished_job(store, objects, tmp_path, 4)
    with serving(keyless) as url, httpx2.Client(base_url=f"{url}/v1") as client:
        page.goto(f"{url}/#/jobs/{job}/review")
        page.get_by_role("button", name=re.compile("^Pair 0, score")).focus()
        for key in ("a", "r", "a"):
            page.keyboard.press(key)
        page.get_by_label("Your name").fill("Ada")
        page.get_by_label("COCO").check()
        with page.expect_download() as downloading:
            page.get_by_role("button", name="Save the decisions as a file").click()
        assert downloading.value.suggested_filename == f"{job}-review.json"
        file = tmp_path / "review.json"
        downloading.value.save_as(file)
        saved = json.loads(file.read_text())
        assert (saved["reviewer"], saved["formats"]) == ("Ada", ["coco"])
        assert [each["candidate"] for each in saved["approved"]] == [0, 2]

        page.evaluate("localStorage.clear()")
        page.reload()
        expect(page.get_by_text("0 approved, 0 rejected, 4 open of 4")).to_be_visible()
        stranger = {"candidate": 0, "job_id": object_keys.new_id(Kind.JOB)}
        file.write_text(json.dumps({**saved, "approved": [*saved["approved"], stranger]}))
        page.get_by_label("Load decisions from a file").set_input_files(file)
        expect(page.get_by_text("2 approved, 1 rejected, 1 open of 4")).to_be_visible()
        expect(
            page.get_by_text("Decisions taken: 3. Not taken, because their pairs are not in this review: 1.")
        ).to_be_visible()
        expect(page.get_by_label("Your name")).to_have_value("Ada")
        assert serious_findings(page) == []
        for content in ("[", "{}", '[{"candidate": "0"}]'):
            file.write_text(content)
            page.get_by_label("Load decisions from a file").set_input_files(file)
            expect(page.get_by_role("alert")).to_contain_text("This file has no decisions")
        expect(page.get_by_text("2 approved, 1 rejected, 1 open of 4")).to_be_visible()

        file.write_text(json.dumps(saved))
        asked = approvals(file)
        with Client(url) as own:
            made = own.select_pairs(job, asked["approved"], reviewer=asked["reviewer"], formats=asked["formats"]).id
        page.goto(f"{url}/#/jobs/{job}/review")
        page.get_by_role("button", name="Make the dataset").click()
        expect(page.get_by_text("Waiting for a worker")).to_be_visible()
        by_page = page.url.rpartition("/")[2]
        page.goto(f"{url}/#/jobs/{job}/review")  # a dataset that was only asked for may fail
        expect(page.get_by_text("2 approved, 1 rejected, 1 open of 4")).to_be_visible()
        page.evaluate(f"localStorage.setItem('pairforge-review-{job}', '[broken')")
        page.reload()
        expect(page.get_by_text("0 approved, 0 rejected, 4 open of 4")).to_be_visible()
        requests = [client.get(f"/jobs/{each}").json()["request"] for each in (made, by_page)]
        assert requests[0] == requests[1]
        lists = [json.loads(objects.get(object_keys.approved(each))) for each in (made, by_page)]
        assert lists[0] == lists[1]


def test_a_thousand_pairs_are_looked_through_with_few_of_them_in_the_document(
    browser: Browser, page: Page, keyless: Settings, store: RecordStore, objects: ObjectStore, tmp_path: Path
) -> None:
    job = finished_job(store, objects, tmp_path, PAIRS)
    with serving(keyless) as url:
        page.goto(f"{url}/#/jobs/{job}/review")
        tiles = page.locator(".tile")
        expect(tiles.first.locator("img")).to_be_visible()
        assert tiles.count() < IN_VIEW
        page.get_by_role("button", name=re.compile("^Pair 0, score")).focus()
        page.keyboard.press("End")
        last = page.get_by_role("button", name=re.compile(f"^Pair {PAIRS - 1}, score"))
        expect(last).to_be_focused()
        assert tiles.count() < IN_VIEW
        page.keyboard.press("a")
        page.get_by_role("combobox", name="Sort by").select_option("best score first")
        expect(page.locator(".tile.approved")).to_have_attribute("data-index", "0")
        page.get_by_role("combobox", name="Show").select_option("open")
        page.get_by_role("button", name="approve all shown").click()
        expect(page.get_by_text(f"{PAIRS} approved, 0 rejected, 0 open of {PAIRS}")).to_be_visible()
        page.get_by_label("Your name").fill("Ada")
        page.get_by_role("button", name="Make the dataset").click()
        expect(page.get_by_text("Approved pairs of another job, chosen by Ada")).to_be_visible()


def test_the_last_pair_under_a_filter_is_decided_by_key_and_the_one_before_it_is_next(
    browser: Browser, page: Page, keyless: Settings, store: RecordStore, objects: ObjectStore, tmp_path: Path
) -> None:
    job = finished_job(store, objects, tmp_path, 3)
    with serving(keyless) as url:
        page.goto(f"{url}/#/jobs/{job}/review")
        page.get_by_role("combobox", name="Show").select_option("open")
        page.get_by_role("button", name=re.compile("^Pair 2, score")).focus()
        for decided, key in enumerate(("a", "r", "a"), 1):
            page.keyboard.press(key)
            expect(page.locator(".tile")).to_have_count(3 - decided)
        expect(page.get_by_text("2 approved, 1 rejected, 0 open of 3")).to_be_visible()


def test_a_server_that_cannot_be_reached_for_a_moment_is_asked_again_and_a_second_click_makes_no_second_dataset(
    browser: Browser, page: Page, keyless: Settings, store: RecordStore, objects: ObjectStore, tmp_path: Path
) -> None:
    job = finished_job(store, objects, tmp_path, 3)
    with serving(keyless) as url:
        page.route(f"**/v1/jobs/{job}", lambda route: route.abort(), times=2)
        page.goto(f"{url}/#/jobs/{job}")
        expect(page.get_by_role("alert")).to_have_text("The server cannot be reached.")
        page.get_by_role("button", name="Review the pairs").click()
        page.get_by_role("button", name="approve all shown").click()
        page.get_by_label("Your name").fill("Ada")
        page.get_by_role("button", name="Make the dataset").dblclick()
        expect(page.get_by_text("Approved pairs of another job, chosen by Ada")).to_be_visible()
        assert len(httpx2.get(f"{url}/v1/jobs").json()["data"]) == 2


def test_the_newest_pairs_come_first_where_they_are_asked_for_so(
    keyless: Settings, store: RecordStore, objects: ObjectStore, tmp_path: Path
) -> None:
    job = finished_job(store, objects, tmp_path, 5)
    with serving(keyless) as url:
        first = httpx2.get(f"{url}/v1/jobs/{job}/pairs?order=newest&limit=3").json()
        rest = httpx2.get(f"{url}/v1/jobs/{job}/pairs?order=newest&cursor={first['next_cursor']}").json()
    assert [[pair["candidate"] for pair in answer["data"]] for answer in (first, rest)] == [[4, 3, 2], [1, 0]]


def test_a_verdict_is_shown_with_the_numbers_behind_it(
    browser: Browser, page: Page, keyless: Settings, store: RecordStore, objects: ObjectStore, tmp_path: Path
) -> None:
    verdict = {"status": "measured", "metric": "pixel AP", "change": 0.1, "spread": 0.01, "helps": True, "seeds": 3}
    verdict["sentence"] = "The pairs raise pixel AP by 0.10 ± 0.01."
    rows = [
        {"row": "real", "mean": {"pixel_ap": 0.41, "image_ap": None}, "sd": {"pixel_ap": 0.02, "image_ap": None}},
        {"row": "real+generated", "mean": {"pixel_ap": 0.51, "image_ap": 0.9}, "sd": {"pixel_ap": 0.01}},
    ]
    job = finished_job(store, objects, tmp_path, 3, {"verdict": verdict, "rows": rows, "seeds": [0, 1, 2]})
    with serving(keyless) as url:
        page.goto(f"{url}/#/jobs/{job}")
        expect(page.get_by_text("The pairs help")).to_be_visible()
        expect(page.get_by_text(verdict["sentence"])).to_be_visible()
        expect(page.get_by_role("row", name="real and generated pairs")).to_contain_text("51.0 ± 1.0")
        expect(page.get_by_role("columnheader")).to_have_text(["Trained on", "pixel AP", "image AP"])
        assert serious_findings(page) == []


def test_the_page_speaks_german_and_stays_readable_in_the_dark(browser: Browser, keyless: Settings) -> None:
    with serving(keyless) as url, opened(browser, "de-DE", "dark") as page:
        page.goto(f"{url}/#/adapters/new")
        expect(page.get_by_role("button", name="Trainieren")).to_be_visible()
        assert page.evaluate("document.documentElement.lang") == "de"
        assert serious_findings(page) == []
        page.get_by_role("combobox", name="Sprache").select_option("EN")
        expect(page.get_by_role("button", name="Train")).to_be_visible()


def test_a_browser_is_told_at_once_of_every_module_that_the_page_consists_of() -> None:
    folder = Path("service/page")
    told = re.findall(r'href="page/([\w/.]+\.js)"', (folder / "index.html").read_text(encoding="utf-8"))
    modules = {path.relative_to(folder).as_posix() for path in folder.rglob("*.js")}
    assert sorted(told) == sorted(modules - {"app.js"})
