"""Makes the pictures of the page in `docs/`: its views, from photographs of two defect types to an approved dataset.

    python -m bench.page_pictures [FOLDER]

A stack of its own trains and generates, so that every number in the pictures is one that the page shows.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image
from playwright.sync_api import Locator, Page, expect, sync_playwright

from bench.page import launched
from model.pretrain.procedural.canvas import Canvas
from model.pretrain.procedural.lines import scratch
from model.pretrain.procedural.noise import mix
from model.pretrain.procedural.samples import INSET, SAMPLES, SIDE, camera, plate
from model.types import ImageArray, MaskArray
from service.embedded.stack import Stack, StackOptions

PHOTOGRAPHS = 3
"""Of each defect type."""

SCRATCH_AREA = (150, 600)
"""Pixels of a scratch that is kept, smallest and largest."""

TRAINING = {"steps": "240", "checkpoint every": "80"}
"""Fields of the form that make it short: the model is not what the pictures show."""

COUNTS = {"hole": "12", "scratch": "12"}

PATIENCE = 1_800_000
"""Milliseconds that training or generating may take on a busy machine."""

DRAWN_ALL = """async () => {
  await Promise.all([...document.images].map((image) => image.decode()));
  await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
}"""
"""Waits until all pictures of a page are drawn."""

DRAWN = (0.467, 0.763)
"""Where the last hole lies in the painter, as shares of its canvas."""


def write_product(folder: Path) -> None:
    """Write plates with holes and with scratches as in MVTec AD; the last hole has no mask."""
    pictures = {f"train/good/{path.name}": _read(path) for path in sorted((SAMPLES / "normals").iterdir())}
    for number in range(PHOTOGRAPHS):
        pictures[f"test/hole/{number:03}.png"] = _read(SAMPLES / f"images/plate_{number + 1:02}.png")
        if number < PHOTOGRAPHS - 1:
            pictures[f"ground_truth/hole/{number:03}_mask.png"] = _read(SAMPLES / f"masks/plate_{number + 1:02}.png")
        image, mask = scratched(number)
        pictures[f"test/scratch/{number:03}.png"] = image
        pictures[f"ground_truth/scratch/{number:03}_mask.png"] = mask
    for name, picture in pictures.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / name)


def _read(path: Path) -> np.ndarray:
    with Image.open(path) as file:
        return np.asarray(file)


def scratched(number: int) -> tuple[ImageArray, MaskArray]:
    """Plate `number` with a bright scratch: `(160, 160, 3)` uint8, and its mask `(160, 160)` bool."""
    rng = np.random.default_rng([number, SIDE, 2])
    canvas, lens = plate(rng), camera(rng)
    inner = Canvas(canvas.picture, canvas.behind, canvas.distance - INSET)
    while True:
        defect = scratch(rng, inner, 2.0)
        mask = (defect.coverage >= 0.4) & (canvas.distance > 0)
        image = lens.photograph(mix(canvas.picture, defect.picture, defect.coverage * (canvas.distance > 0)))
        if SCRATCH_AREA[0] <= mask.sum() <= SCRATCH_AREA[1] and image[mask].mean() > 1.4 * image[~mask].mean():
            return image, mask


class Camera:
    """Takes the pictures of a page once all that it shows is there."""

    def __init__(self, page: Page, into: Path) -> None:
        self.page = page
        self._into = into

    def take(self, name: str, *, whole: bool = True) -> None:
        expect(self.page.locator(".blank:empty")).to_have_count(0)
        self.page.evaluate(DRAWN_ALL)
        self.page.screenshot(path=self._into / f"page-{name}.png", full_page=whole)

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)


@contextmanager
def opened(address: str, into: Path) -> Iterator[Camera]:
    with sync_playwright() as playwright:
        browser = launched(playwright)
        context = browser.new_context(viewport={"width": 1280, "height": 900}, locale="en-GB", reduced_motion="reduce")
        context.set_default_timeout(PATIENCE)
        expect.set_options(timeout=PATIENCE)
        page = context.new_page()
        page.goto(address)
        yield Camera(page, into)
        browser.close()


def take_pictures(camera: Camera, folder: Path) -> None:
    """Go the whole way through the page.

    Args:
        folder: what `write_product` has written.
    """
    new_adapter(camera, folder)
    trained(camera)
    generated(camera)
    reviewed(camera)


def new_adapter(camera: Camera, folder: Path) -> None:
    page = camera.page
    camera.button("New adapter").click()
    page.get_by_label("Name", exact=True).fill("plates")
    page.get_by_label("Object", exact=True).fill("steel plate")
    page.locator("#files-pairs-folder").set_input_files(folder)
    page.get_by_role("button", name="Draw the mask").click()
    canvas = page.get_by_role("application")
    width, height = canvas.evaluate("(canvas) => [canvas.clientWidth, canvas.clientHeight]")
    camera.button("Fill").click()
    canvas.click(position={"x": DRAWN[0] * width, "y": DRAWN[1] * height})
    canvas.hover(position={"x": DRAWN[0] * width + 60, "y": DRAWN[1] * height - 30})
    camera.take("painter", whole=False)
    camera.button("Use this mask").click()
    expect(page.get_by_text("drawn here")).to_be_visible()
    camera.take("new-adapter")


def trained(camera: Camera) -> None:
    page = camera.page
    page.get_by_text("All options").click()
    for label, value in TRAINING.items():
        page.get_by_label(label, exact=True).fill(value)
    camera.button("Train").click()
    expect(page.get_by_role("img", name=re.compile("Samples at step [1-9]")).first).to_be_visible()
    camera.take("adapter")
    camera.button("Generate pairs").click()


def generated(camera: Camera) -> None:
    page = camera.page
    for kind, count in COUNTS.items():
        page.get_by_role("spinbutton", name=kind, exact=True).fill(count)
    page.get_by_label("Seed").fill("7")
    page.get_by_label("COCO").check()
    camera.button("Paint the place").click()
    paint(page, ((0.2, 0.2), (0.8, 0.2), (0.8, 0.8), (0.2, 0.8)))
    camera.button("Use this place").click()
    camera.button("Paint the place").click()
    page.get_by_role("radio", name="No defects here").check()
    page.get_by_role("checkbox", name="For this photograph only").check()
    paint(page, ((0.02, 0.75), (0.98, 0.75), (0.98, 0.98), (0.02, 0.98)))
    camera.button("Use this place").click()
    expect(page.locator(".places li")).to_have_count(2)
    camera.take("places")
    for _ in range(2):
        page.locator(".places li").first.get_by_role("button", name="Remove").click()
    camera.button("Generate").click()
    expect(camera.button("Review the pairs")).to_be_visible()
    camera.take("job")


def paint(page: Page, corners: tuple[tuple[float, float], ...]) -> None:
    """Click an outline on the open good part, which is square; its corners are shares of the picture."""
    expect(page.locator(".painter footer [role=status]")).to_have_text("Mask: 0 %")
    canvas = page.get_by_role("application")
    width, height = canvas.evaluate("(canvas) => [canvas.clientWidth, canvas.clientHeight]")
    side = 0.96 * min(width, height)
    x, y = (width - side) / 2, (height - side) / 2
    page.get_by_role("button", name="Polygon").click()
    for right, down in corners:
        canvas.click(position={"x": x + right * side, "y": y + down * side})
    canvas.press("Enter")


def reviewed(camera: Camera) -> None:
    page = camera.page
    camera.button("Review the pairs").click()
    page.get_by_role("button", name=re.compile("^Pair 0, score")).focus()
    for key in "aaaraaraaa":
        page.keyboard.press(key)
    camera.take("review")
    page.keyboard.press("Enter")
    pair = page.get_by_role("dialog")
    expect(pair.get_by_role("img", name=re.compile("Nearest"))).to_be_visible()
    pair.get_by_role("slider").fill("60")
    camera.take("pair", whole=False)
    page.keyboard.press("Escape")
    page.get_by_role("combobox", name="Show").select_option("open")
    camera.button("Approve all shown").click()
    page.get_by_role("button", name=re.compile("^Make 2 new pairs")).click()
    expect(page.get_by_text("2 open of 26")).to_be_visible()
    camera.take("replacements")


def main() -> None:
    into = Path(sys.argv[1] if len(sys.argv) > 1 else "docs")
    with TemporaryDirectory(prefix="pairforge-pictures-") as name:
        folder, data = Path(name) / "plate", Path(name) / "data"
        write_product(folder)
        with Stack(StackOptions(data), print) as stack, opened(stack.start().url, into) as camera:
            take_pictures(camera, folder)


if __name__ == "__main__":
    main()
