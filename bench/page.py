"""Measures the page in Chromium: a review of many pairs, from the address to the first pair, and how it scrolls.

A frame is the time between two calls of `requestAnimationFrame`, by the browser's own clock; an idle browser has one
every 16.7 ms. The browser draws without a GPU, and shares the cores with the stack that it asks for pictures.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Page, Playwright, sync_playwright

from bench.machine import machine
from model.export.dataset import Provenance, write_dataset
from model.pretrain.procedural.samples import SAMPLES
from model.types import Candidate, ImageArray
from service.core import object_keys
from service.core.connections import connect
from service.core.object_keys import Kind
from service.core.records.store import RecordStore
from service.core.settings import Settings
from service.core.storage import ObjectStore
from service.core.strict_json import to_json
from service.embedded.folder import Running
from service.embedded.stack import Stack, StackOptions

PACKAGES = ("fastapi", "uvicorn", "playwright")

KEY = "local"
"""Owner of what is made without API keys."""

FIRST_PAIR = """() => new Promise((resolve) => {
  const look = () => {
    const picture = document.querySelector(".tile img");
    if (picture?.complete && picture.naturalWidth) resolve(performance.now());
    else requestAnimationFrame(look);
  };
  look();
})"""
"""Milliseconds from the navigation until the first pair's picture is there."""

FRAMES = """([pixels, count]) => new Promise((resolve) => {
  const grid = document.querySelector(".grid");
  const frames = [];
  let last = null;
  const step = (now) => {
    if (last !== null) frames.push(now - last);
    last = now;
    grid.scrollTop += pixels;
    if (frames.length < count) requestAnimationFrame(step);
    else resolve(frames);
  };
  requestAnimationFrame(step);
})"""
"""Milliseconds between frames, while every frame scrolls on by so many pixels."""

SPEEDS = {"slow, a row in a third of a second": 12, "fast, five rows in a third of a second": 60}
"""Kind of scrolling → pixels per frame."""

FRAME_COUNT = 240


@dataclass(frozen=True, slots=True)
class Scroll:
    """Frames of one way to scroll, milliseconds."""

    name: str
    longest: float
    p99: float
    median: float
    over_50: int
    over_100: int
    frames: int


@dataclass(frozen=True, slots=True)
class PageFigures:
    """What was measured.

    Attributes:
        first, again: milliseconds to the first pair, in a new browser profile, and in one that has files and pictures.
    """

    pairs: int
    side: int
    first: float
    again: float
    scrolls: list[Scroll]


def run_page(
    pairs: int, side: int, into: Path, loads: tuple[float, float, float], report: Callable[[str], None]
) -> str:
    """Measure the review of a job; returns the table, which is also written.

    Args:
        pairs: number of pairs to review.
        side: sides of their images, pixels.
    """
    with TemporaryDirectory(prefix="pairforge-bench-") as name, Stack(StackOptions(Path(name)), report) as stack:
        running = stack.start()
        report(f"{pairs} pairs of {side} × {side} pixels are written")
        with TemporaryDirectory(prefix="pairforge-bench-") as folder:
            job = finished_job(settings_of(running), Path(folder), pairs, side)
        report("the browser opens them")
        figures = measure_review(f"{running.url}/#/jobs/{job}/review", pairs, side)
    text = f"{page_table(figures)}\n{machine(loads, PACKAGES)}\n"
    into.mkdir(parents=True, exist_ok=True)
    (into / "page.md").write_text(text, encoding="utf-8")
    (into / "page.json").write_text(to_json(asdict(figures), indent=1), encoding="utf-8")
    return text


def settings_of(running: Running) -> Settings:
    """Return the settings with which a stack's servers are reached."""
    named = {name.removeprefix("PAIRFORGE_").lower(): value for name, value in running.environment.items()}
    return Settings.model_validate({name: value for name, value in named.items() if name in Settings.model_fields})


def finished_job(settings: Settings, folder: Path, pairs: int, side: int) -> str:
    """Store a dataset as if a worker had made it; returns the job's id."""
    redis = connect(settings)
    store, objects = RecordStore(redis, settings), ObjectStore(settings)
    rng = np.random.default_rng(0)
    parts = [_resized(path, side) for path in sorted((SAMPLES / "normals").iterdir())]

    def candidate(number: int) -> Candidate:
        image = parts[number % len(parts)].copy()
        mask = np.zeros((side, side), bool)
        top, left = rng.integers(0, side * 3 // 4, 2)
        mask[top : top + side // 6, left : left + side // 8] = True
        image[mask] //= 2
        return Candidate(number, number, image, mask, scores={"score": float(rng.random())})

    counts = {"attempts": pairs, "accepted": pairs, "rejected": {}}
    path = folder / "dataset.zip"
    write_dataset(path, map(candidate, range(pairs)), Provenance("plate", "hole", {}, None, None, counts))
    request = {"adapter_id": object_keys.new_id(Kind.ADAPTER), "num_pairs": pairs, "formats": [], "seed": 0}
    job = store.submissions.create(Kind.JOB, object_keys.new_id(Kind.JOB), KEY, request)[0].id
    key = object_keys.dataset(job, "bench")
    objects.put(key, path, "application/zip")
    result = {"bytes": path.stat().st_size, "sha256": "0" * 64, "counts": counts, "request": {}, "dataset": key}
    store.claims.claim(job, "bench")
    store.blocks.claim_judge(job, "bench")
    store.claims.succeed(job, "bench", {**result, "preview": key}, 1)
    objects.close()
    redis.close()
    return job


def _resized(path: Path, side: int) -> ImageArray:
    with Image.open(path) as file:
        return np.asarray(file.convert("RGB").resize((side, side)))


def measure_review(address: str, pairs: int, side: int) -> PageFigures:
    """Open a review, measure until the first pair is there, and scroll."""
    with sync_playwright() as playwright:
        browser = launched(playwright)
        _opened(browser, address)[0].context.close()  # what only the first visit to a new server costs
        page, first = _opened(browser, address)
        again = _first_pair(page, address)
        scrolls = [_scroll(page, name, pixels) for name, pixels in SPEEDS.items()]
        browser.close()
    return PageFigures(pairs, side, first, again, scrolls)


def launched(playwright: Playwright) -> Browser:
    """Start the browser.

    Raises:
        FileNotFoundError: there is no Chromium.
    """
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        raise FileNotFoundError("no Chromium; on Debian and Ubuntu: sudo apt-get install chromium")
    return playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"])


def _opened(browser: Browser, address: str) -> tuple[Page, float]:
    page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    return page, _first_pair(page, address)


def _first_pair(page: Page, address: str) -> float:
    page.goto("about:blank")
    page.goto(address, wait_until="commit")
    return float(page.evaluate(FIRST_PAIR))


def _scroll(page: Page, name: str, pixels: int) -> Scroll:
    page.evaluate("document.querySelector('.grid').scrollTop = 0")
    time.sleep(1)  # until the pictures in view are there
    frames: Any = np.array(page.evaluate(FRAMES, [pixels, FRAME_COUNT]))
    return Scroll(
        name,
        float(frames.max()),
        float(np.percentile(frames, 99)),
        float(np.median(frames)),
        int((frames > 50).sum()),
        int((frames > 100).sum()),
        len(frames),
    )


def page_table(figures: PageFigures) -> str:
    """Render the figures."""
    lines = [
        f"Review of {figures.pairs} pairs of {figures.side} × {figures.side} pixels",
        "",
        "| to the first pair | ms |",
        "|---|---:|",
        f"| a new browser profile | {figures.first:.0f} |",
        f"| opened again | {figures.again:.0f} |",
        "",
        "| scrolling | longest frame, ms | 99 % | median | over 50 ms | over 100 ms |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {each.name} | {each.longest:.0f} | {each.p99:.0f} | {each.median:.1f} | {each.over_50} of {each.frames} "
        f"| {each.over_100} |"
        for each in figures.scrolls
    ]
    return "\n".join(lines)
