"""Debian's Chromium, driven by Playwright, and the page as it is served."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Dialog, Error, Page, Request, expect, sync_playwright

from service.core.settings import Settings
from service.core.storage import ObjectStore
from tests.support.servers import MakeSettings

AXE = Path(__file__).parents[2] / "support" / "axe-core" / "axe.min.js"
PATIENCE = 30_000
"""Milliseconds to wait for what is to appear; the cores may have too much to do."""

SERIOUS = {"serious", "critical"}


class Asked:
    """Answers the browser's questions to the person as `accepts` says, and keeps them."""

    def __init__(self, page: Page) -> None:
        self.accepts = False
        self.questions: list[str] = []
        page.on("dialog", self._answer)

    def _answer(self, dialog: Dialog) -> None:
        self.questions.append(dialog.type if dialog.type == "beforeunload" else dialog.message)
        if self.accepts:
            dialog.accept()
        else:
            dialog.dismiss()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The browser; tests are skipped where none is installed. Playwright's event loop ends with the module."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium; on Debian and Ubuntu: sudo apt-get install chromium")
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        # The sandbox needs rights that containers do not give.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield browser
        browser.close()


@contextmanager
def opened(browser: Browser, locale: str = "en-GB", color_scheme: Literal["dark", "light"] = "light") -> Iterator[Page]:
    """A page with nothing open, in a context of its own.

    Whatever its console says is an error at the end, and so are requests to other places than its own.
    """
    heard: list[str] = []
    context = browser.new_context(
        reduced_motion="reduce", viewport={"width": 1280, "height": 900}, locale=locale, color_scheme=color_scheme
    )
    context.set_default_timeout(PATIENCE)
    page = context.new_page()

    def said(message: ConsoleMessage) -> None:
        # A refusal is an answer like others, which the browser always reports.
        if message.type in {"error", "warning"} and "Failed to load resource" not in message.text:
            heard.append(f"{message.type}: {message.text}")

    def broke(error: Error) -> None:
        heard.append(f"uncaught: {error}")

    def asked(request: Request) -> None:
        if request.resource_type != "document" and request.url.startswith("http"):
            own = page.url.partition("/#")[0].partition("?")[0]
            if not request.url.startswith(own[: own.rfind("/") + 1] if own.endswith("/") else own):
                heard.append(f"asked another place: {request.url}")

    page.on("console", said)
    page.on("pageerror", broke)
    page.on("request", asked)
    try:
        yield page
    finally:
        context.close()
    assert heard == []


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with opened(browser) as page:
        yield page


@pytest.fixture
def keyless(server_settings: MakeSettings, objects: ObjectStore, tmp_path: Path) -> Settings:
    return server_settings(require_keys=False, spool_dir=tmp_path)


def serious_findings(page: Page) -> list[str]:
    """What axe-core finds that keeps people from using the page as it is now."""
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found: dict[str, Any] = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{each['id']}: {each['help']}: {[node['html'][:160] for node in each['nodes']][:3]}"
        for each in found["violations"]
        if each["impact"] in SERIOUS
    ]
