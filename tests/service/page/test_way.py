"""The whole way in a real browser, with a worker: on samples, on real photographs, and when the worker is killed."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import httpx2
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from model.diffusion.base import SHIPPED
from service.embedded.processes import marked
from tests.service.embedded.running import Up, pictures
from tests.service.page.conftest import serious_findings
from tests.service.page.way import approved, draw_the_missing_mask, files, generate, look_through, made, replace, train

pytestmark = pytest.mark.timeout(600)

CORNERS = 24
"""Corners of an outline that is clicked around a defect."""

MANY = 400
"""Pairs that take a worker so long that it can be killed meanwhile."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with Up(tmp_path_factory.mktemp("stacks") / "page", SHIPPED / "mini", lease_seconds=20) as up:
        yield up


def test_from_a_drawn_mask_to_an_approved_dataset(browser: Browser, page: Page, stack: Up, tmp_path: Path) -> None:
    page.goto(stack.url)
    expect(page.get_by_role("heading", name="Adapters", exact=True)).to_be_visible()
    assert serious_findings(page) == []
    page.get_by_role("button", name="New adapter").click()
    # Three photographs come with masks, in any order; the fourth mask is drawn.
    page.locator("#files-pairs").set_input_files(files("masks", 3))
    page.locator("#files-pairs").set_input_files(files("images", 4))
    page.locator("#files-normals").set_input_files(pictures("normals"))
    expect(page.get_by_text("1 of 4 photographs have no mask yet")).to_be_visible()
    draw_the_missing_mask(page)
    what_an_empty_field_means_is_shown(page, stack)
    train(page, "steel plate", "hole")
    job = generate(page, 12)
    made(page, 12)
    look_through(page)
    replace(page)
    content = approved(page, tmp_path / "approved.zip", "12 approved, 1 rejected, 0 open of 13")
    described, rows = read(content)
    assert described["selection"]["by"] == "Ada"
    assert [each["approved"] for each in described["selection"]["jobs"]] == [11, 1]
    assert [row["review"]["job_id"] == job for row in rows] == 11 * [True] + [False]
    assert [row["review"]["mask_touched_up"] for row in rows] == [False, False, True, *9 * [False]]


def what_an_empty_field_means_is_shown(page: Page, stack: Up) -> None:
    """The base recommends another number of steps than the method's own."""
    base = next(base for base in httpx2.get(f"{stack.url}/v1/bases").json()["data"] if base["default"])
    page.get_by_text("All options").click()
    expect(page.get_by_placeholder(f"default: {base['training']['steps']}", exact=True)).to_have_id("option-steps")
    page.get_by_text("All options").click()


def read(content: bytes) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What a zip says of itself and of its pairs; it also has the layout that was asked for."""
    with ZipFile(io.BytesIO(content)) as file:
        assert "coco/instances_rle.json" in file.namelist()
        rows = [json.loads(line) for line in file.read("manifest.jsonl").splitlines()]
        return json.loads(file.read("dataset.json")), rows


def test_real_photographs_without_masks_become_an_approved_dataset(
    browser: Browser, page: Page, stack: Up, magnetic_tile: Path, tmp_path: Path
) -> None:
    splits = json.loads((magnetic_tile / "splits.json").read_text())
    photographs = [
        magnetic_tile / "blowhole/image" / f"{name}.jpg" for name in splits["defects"]["blowhole"]["train"][:4]
    ]
    normals = [magnetic_tile / "normal/image" / f"{name}.jpg" for name in splits["normal"]["train"][:12]]
    page.goto(f"{stack.url}/#/adapters/new")
    page.locator("#files-pairs").set_input_files(photographs)
    page.locator("#files-normals").set_input_files(normals)
    expect(page.get_by_text("4 of 4 photographs have no mask yet")).to_be_visible()
    for number, photograph in enumerate(photographs):
        page.get_by_role("button", name=f"Draw the mask: {photograph.name}").click()
        outline(page, magnetic_tile / "blowhole/mask" / f"{photograph.stem}.png")
        page.get_by_role("button", name="Use this mask").click()
        expect(page.get_by_text("drawn here")).to_have_count(number + 1)
    train(page, "magnetic tile", "blowhole")
    generate(page, 8)
    made(page, 8)
    page.get_by_role("button", name="Review the pairs").click()
    page.get_by_role("button", name="approve all shown").click()
    described, rows = read(approved(page, tmp_path / "approved.zip", "8 approved, 0 rejected, 0 open of 8"))
    assert (described["object"], described["defect"]) == ("magnetic tile", "blowhole")
    assert {row["review"]["by"] for row in rows} == {"Ada"}


def outline(page: Page, mask: Path) -> None:
    """Zoom in and click around what a mask covers, as somebody would who sees the defect."""
    with Image.open(mask) as file:
        covered = np.asarray(file.convert("L")) > 127
    height, width = covered.shape
    rows = np.nonzero(covered.any(1))[0]
    chosen = np.unique(np.linspace(rows[0], rows[-1], CORNERS // 2).astype(int))
    edges = [(np.nonzero(covered[row])[0][[0, -1]], row) for row in chosen]
    corners = [(sides[0], row) for sides, row in edges] + [(sides[1] + 1, row + 1) for sides, row in edges[::-1]]
    middle = np.mean(corners, axis=0)
    box = page.get_by_role("application").bounding_box()
    assert box is not None
    scale = 0.96 * min(box["width"] / width, box["height"] / height)
    corner = np.array([box["x"] + (box["width"] - scale * width) / 2, box["y"] + (box["height"] - scale * height) / 2])
    pointed = corner + scale * middle
    closer = 300 / (scale * np.ptp(corners, axis=0).max())
    page.mouse.move(*pointed)
    page.mouse.wheel(0, -400 * float(np.log(closer)))
    page.get_by_role("button", name="Polygon").click()
    for x, y in pointed + closer * scale * (np.array(corners) - middle):
        page.mouse.click(x, y)
    page.get_by_role("application").press("Enter")
    told = page.locator(".painter footer [role=status]")
    expect(told).not_to_have_text("Mask: 0 %")
    share = float(told.inner_text().removeprefix("Mask: ").removesuffix(" %")) / 100
    assert share == pytest.approx(covered.mean(), rel=0.35)


def test_a_worker_is_killed_meanwhile_and_the_page_goes_on(browser: Browser, page: Page, stack: Up) -> None:
    with stack.client() as client:
        images, masks, normals = files("images", 3), files("masks", 3), pictures("normals")
        adapter = client.create_adapter(images, masks, normals, name="plates", method="copy-paste").id
        assert client.wait(adapter, timeout=240).state == "succeeded"
        page.goto(f"{stack.url}/#/adapters/{adapter}")
        job = generate(page, MANY)
        expect(page.get_by_role("img", name=re.compile("Image of pair")).first).to_be_visible(timeout=240_000)
        assert client.get(job).state == "running"
        killed = workers(stack)
        for pid in killed:
            with contextlib.suppress(ProcessLookupError):  # killed with its parent
                os.kill(pid, signal.SIGKILL)
        made(page, MANY)
        assert workers(stack)
        assert workers(stack).isdisjoint(killed)


def workers(stack: Up) -> set[int]:
    """Processes of the stack's worker."""
    found = set()
    for pid in marked(stack.data_dir.resolve()):
        with contextlib.suppress(OSError):  # it ended meanwhile
            if b"worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.add(pid)
    return found
