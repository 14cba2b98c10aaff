"""Steps of a user's way through the page, from photographs to a dataset."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.service.embedded.running import pictures
from tests.service.page.conftest import serious_findings


def files(kind: str, count: int) -> list[Path]:
    return pictures(kind)[:count]


def draw_the_missing_mask(page: Page) -> None:
    """Brush over the hole, take it back, do it again, and fill what looks alike."""
    page.get_by_role("button", name="Draw the mask").click()
    canvas = page.get_by_role("application")
    use = page.get_by_role("button", name="Use this mask")
    expect(use).to_be_disabled()
    box = canvas.bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] * 0.467, box["y"] + box["height"] * 0.763
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 15, y + 5, steps=4)
    page.mouse.up()
    expect(use).to_be_enabled()
    page.get_by_role("button", name="Undo").click()
    expect(use).to_be_disabled()
    page.get_by_role("button", name="Redo").click()
    expect(use).to_be_enabled()
    page.get_by_role("button", name="Fill").click()
    page.mouse.click(x, y)
    assert serious_findings(page) == []
    use.click()
    expect(page.get_by_text("drawn here")).to_be_visible()


def train(page: Page, product: str, defect: str) -> None:
    """Train by copy-paste, the quickest method."""
    page.get_by_label("Name", exact=True).fill(f"{product}s")
    page.get_by_label("Object", exact=True).fill(product)
    page.get_by_label("Defect", exact=True).fill(defect)
    page.get_by_label("copy-paste").check()
    assert serious_findings(page) == []
    page.get_by_role("button", name="Train").click()
    expect(page.get_by_role("button", name="Generate pairs")).to_be_visible(timeout=120_000)
    expect(page.get_by_role("img", name="Samples at step 0")).to_be_visible()
    assert serious_findings(page) == []


def generate(page: Page, pairs: int) -> str:
    """The id of the job, which has begun."""
    page.get_by_role("button", name="Generate pairs").click()
    page.get_by_label("Number of pairs").fill(str(pairs))
    page.get_by_label("Seed").fill("7")
    page.get_by_label("COCO").check()
    assert serious_findings(page) == []
    page.get_by_role("button", name="Generate", exact=True).click()
    expect(page.get_by_role("heading", name=f"{pairs} pairs")).to_be_visible()
    return page.url.rpartition("/")[2]


def made(page: Page, pairs: int) -> None:
    """Wait until all pairs are made; they appear meanwhile."""
    expect(page.get_by_role("img", name=re.compile("Image of pair")).first).to_be_visible(timeout=240_000)
    expect(page.get_by_role("button", name="Review the pairs")).to_be_visible(timeout=240_000)
    expect(page.get_by_text(f"{pairs} of {pairs} accepted")).to_be_visible()
    assert serious_findings(page) == []


def look_through(page: Page) -> None:
    """Approve two by key, reject one, and change the mask of a fourth by the keyboard alone."""
    page.get_by_role("button", name="Review the pairs").click()
    page.get_by_role("button", name=re.compile("^Pair 0, score")).focus()
    for key in ("a", "a", "r"):
        page.keyboard.press(key)
    expect(page.get_by_text("2 approved, 1 rejected, 9 open of 12")).to_be_visible()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Pair 3")
    expect(dialog.get_by_role("img", name=re.compile("Nearest real defect"))).to_be_visible()
    dialog.get_by_role("slider").fill("40")
    assert serious_findings(page) == []
    dialog.get_by_role("button", name="Change the mask").click()
    painter = page.get_by_role("dialog", name="Mask of pair 3")
    painter.get_by_role("application").focus()
    for key in ("ArrowRight", "ArrowDown", " "):
        page.keyboard.press(key)
    painter.get_by_role("button", name="Use this mask").click()
    expect(dialog.get_by_text("mask changed")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_text("3 approved, 1 rejected, 8 open of 12")).to_be_visible()
    assert serious_findings(page) == []


def replace(page: Page) -> None:
    """Approve the open pairs, ask for as many new ones as are missing, and approve the one that comes."""
    page.get_by_role("combobox", name="Show").select_option("open")
    page.get_by_role("button", name="approve all shown").click()
    expect(page.get_by_text("1 missing: 11 approved, 0 still open.")).to_be_visible()
    assert serious_findings(page) == []
    page.get_by_role("button", name="Make 1 new pair").click()
    expect(page.get_by_text("11 approved, 1 rejected, 1 open of 13")).to_be_visible(timeout=120_000)
    page.get_by_role("button", name=re.compile("^Pair 12, score")).focus()
    page.keyboard.press("a")
    expect(page.get_by_text("0 missing: 12 approved, 0 still open.")).to_be_visible()
    expect(page.get_by_role("button", name="Make 0 new pairs")).to_be_disabled()


def approved(page: Page, path: Path, told: str) -> bytes:
    """The dataset of what was approved, which is still known when the page is opened again."""
    page.reload()
    expect(page.get_by_text(told)).to_be_visible()
    page.get_by_label("Your name").fill("Ada")
    page.get_by_role("button", name="Make the dataset").click()
    download = page.get_by_role("button", name="Download the dataset")
    expect(download).to_be_visible(timeout=120_000)
    with page.expect_download() as downloading:
        download.click()
    downloading.value.save_as(path)
    return path.read_bytes()
