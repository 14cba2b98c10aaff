"""A baseline from upload to dataset: the API, a worker process and the library make the same pairs."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import httpx2
import numpy as np
import pytest
from PIL import Image

from model.data.placement import NormalImage
from model.diffusion.base import Base
from model.export.inspection import read_dataset
from model.masks.networks import MaskNetworks, load_object_net
from model.method import TrainingRequest
from model.methods import METHODS, load_adapter, train_adapter
from model.runtime.progress import Progress
from tests.service.api.conftest import serving
from tests.service.embedded.running import LENIENT
from tests.support.waiting import wait_until
from tests.worker.celery_worker import CeleryWorker
from tests.worker.stored import NORMALS, PAIRS, Service, png


def uploads() -> list[tuple[str, tuple[str, bytes, str]]]:
    parts = [("images[]", f"{pair.name}.png", png(pair.image)) for pair in PAIRS]
    parts += [("masks[]", f"{pair.name}.png", png(pair.mask.astype(np.uint8) * 255)) for pair in PAIRS]
    parts += [("normals[]", f"{normal.name}.png", png(normal.image)) for normal in NORMALS]
    return [(kind, (name, content, "image/png")) for kind, name, content in parts]


def succeeded(client: httpx2.Client, path: str) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def ended() -> bool:
        found.update(client.get(path).json())
        return found["state"] in {"succeeded", "failed"}

    wait_until(ended)
    assert found["state"] == "succeeded", found["error"]
    return found


@pytest.mark.parametrize("method", ["copy-paste", "perlin"])
def test_a_baseline_from_upload_to_dataset(
    service: Service,
    base: Base,
    start_worker: Callable[..., CeleryWorker],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
) -> None:
    monkeypatch.setattr("service.api.auth.LOCAL", "me")
    start_worker()
    open_to_all = service.settings.model_copy(update={"require_keys": False})
    with serving(open_to_all) as url, httpx2.Client(base_url=url, timeout=30, follow_redirects=True) as client:
        form = {"name": "blots", "method": method, "view": "window", "seed": "4"}
        created = client.post("/v1/adapters", data=form, files=uploads())
        assert created.status_code == 202, created.text
        adapter = succeeded(client, created.headers["location"])
        asked = {"adapter_id": adapter["id"], "num_pairs": 11, "seed": 5, "limits": LENIENT}
        refused = client.post("/v1/jobs", json={**asked, "steps": 5})
        assert refused.status_code == 422
        assert f"steps is an option of dualanodiff and anomalydiffusion, not of {method}" in refused.text
        job = succeeded(client, client.post("/v1/jobs", json=asked).headers["location"])
        zipped = client.get(job["links"]["dataset"]).content
        (sample,) = adapter["samples"]
        with Image.open(io.BytesIO(client.get(sample["link"]).content)) as sheet:
            assert np.asarray(sheet).std() > 5
    assert adapter["card"]["method"] == method
    assert set(adapter["request"]["training"]) == {"resolution", "view", "flip_horizontal", "flip_vertical", "seed"}
    assert "guidance_scale" not in job["request"]
    (tmp_path / "dataset.zip").write_bytes(zipped)
    assert read_dataset(tmp_path / "dataset.zip").num_pairs == 11
    assert shown(tmp_path / "dataset.zip") == by_library(base, tmp_path / "adapter", method)


def test_an_adapter_made_by_a_worker_remembers_the_brightness_of_the_upload(
    service: Service, start_worker: Callable[..., CeleryWorker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.api.auth.LOCAL", "me")
    start_worker()
    files = [
        (kind, (name, content if kind == "masks[]" else deepened(content), media_type))
        for kind, (name, content, media_type) in uploads()
    ]
    open_to_all = service.settings.model_copy(update={"require_keys": False})
    with serving(open_to_all) as url, httpx2.Client(base_url=url, timeout=30) as client:
        form = {"name": "blots", "method": "copy-paste", "brightness": "0:4095"}
        adapter = succeeded(client, client.post("/v1/adapters", data=form, files=files).headers["location"])
    assert adapter["card"]["brightness"] == [0, 4095]


def shown(path: Path) -> list[tuple[bytes, bytes]]:
    """Pixels of all images and masks of a dataset."""
    with ZipFile(path) as file:
        records = [json.loads(line) for line in file.read("manifest.jsonl").splitlines()]
        return [
            (pixels(file.read(each["image"])).tobytes(), (pixels(file.read(each["mask"])) > 127).tobytes())
            for each in records
        ]


def pixels(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image)


def deepened(content: bytes) -> bytes:
    """The picture in grey with 12 of 16 bits."""
    file = io.BytesIO()
    Image.fromarray(pixels(content).mean(axis=2).astype(np.uint16) * 10).save(file, "PNG")
    return file.getvalue()


def by_library(base: Base, folder: Path, name: str) -> list[tuple[bytes, bytes]]:
    method, networks = METHODS[name], MaskNetworks(None, None)
    settings = method.resolve_training(base, {"view": "window", "seed": 4})
    for _ in train_adapter(TrainingRequest(base, PAIRS, settings, "", "", networks, method=name), folder, folder):
        pass
    adapter = load_adapter(folder, base)
    normals = [NormalImage(f"{normal.name}.png", normal.image) for normal in NORMALS]
    sampling = method.resolve_sampling(base, {"seed": 5}, has_normals=True, adapter=adapter)
    items = method.prepare(adapter, sampling, normals=normals, object_net=load_object_net(base)).decoded(0, 11)
    candidates = [item.to_candidate() for item in items if not isinstance(item, Progress)]
    return [(each.image.tobytes(), each.mask.tobytes()) for each in candidates]
