"""What the page's tests begin with: folders to drop, adapters and jobs that have succeeded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
from PIL import Image, ImageOps
from playwright.sync_api import Page

from model.export.dataset import Provenance, write_dataset
from model.types import Candidate
from service.core import object_keys
from service.core.object_keys import Kind
from service.core.records.store import RecordStore
from service.core.storage import ObjectStore
from tests.service.page.way import files


def drop(page: Page, *paths: Path) -> None:
    """Drop folders or files on the first place for files, as from a file manager."""
    place = page.locator(".drop").first
    place.scroll_into_view_if_needed()
    box = place.bounding_box()
    assert box is not None
    at = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    devtools = page.context.new_cdp_session(page)
    for event in ("dragEnter", "dragOver", "drop"):
        devtools.send("Input.dispatchDragEvent", {"type": event, **at, "data": data})


def product(folder: Path, *, upside_down: bool = False) -> Path:
    """A folder as in MVTec AD, whose two defect types have files of the same names.

    Args:
        upside_down: with other photographs.
    """
    images, masks, normals = (files(kind, 4) for kind in ("images", "masks", "normals"))
    sources = {f"train/good/{number:03}.png": normals[number] for number in range(2)}
    for at, kind in enumerate(("break", "crack")):
        for number in range(2):
            sources[f"test/{kind}/{number:03}.png"] = images[2 * at + number]
            sources[f"ground_truth/{kind}/{number:03}_mask.png"] = masks[2 * at + number]
    for name, source in sources.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with Image.open(source) as picture:
            (ImageOps.flip(picture) if upside_down else picture).save(folder / name)
    return folder


def trained(client: httpx2.Client, store: RecordStore, method: str, types: dict[str, int]) -> str:
    """The id of an adapter that has succeeded.

    Args:
        types: defect type → its number of photographs.
    """
    kinds = [
        (f"{kind}[{name}]", path)
        for name, n in types.items()
        for kind in ("images", "masks")
        for path in files(kind, n)
    ]
    if len(types) == 1:
        kinds = [(f"{field.partition('[')[0]}[]", path) for field, path in kinds]
    kinds += [("normals[]", path) for path in files("normals", 2)]
    parts = [(field, (path.name, path.read_bytes(), "image/png")) for field, path in kinds]
    answer = client.post("/adapters", data={"name": "plates", "method": method}, files=parts, timeout=60)
    assert answer.status_code == 202, answer.text
    adapter = str(answer.json()["id"])
    assert store.claims.claim(adapter, "w")
    assert store.claims.succeed(adapter, "w", {"card": {}, "loss": [], "bytes": 1, "request": {}, "samples": {}}, 1)
    return adapter


def finished_job(
    store: RecordStore, objects: ObjectStore, folder: Path, pairs: int, evaluation: dict[str, Any] | None = None
) -> str:
    """The id of a job that has succeeded, its best pairs last."""
    request = {"adapter_id": object_keys.new_id(Kind.ADAPTER), "num_pairs": pairs, "formats": [], "seed": 0}
    job = store.submissions.create(Kind.JOB, object_keys.new_id(Kind.JOB), "local", request)[0].id
    finish(store, objects, folder, job, [None] * pairs, evaluation)
    return job


def finish(
    store: RecordStore,
    objects: ObjectStore,
    folder: Path,
    job: str,
    types: Sequence[str | None],
    evaluation: dict[str, Any] | None = None,
    first: int = 0,
) -> None:
    """Let a job succeed.

    Args:
        types: the defect type of each of its pairs, None where its adapter has one.
        first: the candidate that is the first of its pairs.
    """
    rng = np.random.default_rng(0)
    mask = np.zeros((32, 32), bool)
    mask[10:16, 12:20] = True
    pairs = len(types)
    candidates = (
        Candidate(
            *(first + number, first + number, rng.integers(0, 256, (32, 32, 3), np.uint8), mask),
            scores={"score": number / pairs},
            defect=kind,
        )
        for number, kind in enumerate(types)
    )
    counts = {"attempts": pairs, "accepted": pairs, "rejected": {}}
    card = {"types": sorted({kind for kind in types if kind})}
    provenance = Provenance("plate", "hole", {}, card, None, counts, evaluation)
    write_dataset(folder / "dataset.zip", candidates, provenance)
    key = object_keys.dataset(job, "w")
    objects.put(key, folder / "dataset.zip", "application/zip")
    assert store.claims.claim(job, "w")
    assert store.blocks.claim_judge(job, "w")
    result = {"bytes": 1, "sha256": "0" * 64, "counts": counts, "request": {}, "dataset": key, "preview": key}
    if evaluation is not None:
        result["verdict"] = evaluation["verdict"]
    assert store.claims.succeed(job, "w", result, 1)
