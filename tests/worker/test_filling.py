"""AnomalyDiffusion from upload to dataset: the API, a worker process and the library make the same pairs."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import httpx2
import numpy as np
import pytest

from model.data.placement import NormalImage
from model.diffusion.base import Base
from model.export.inspection import read_dataset
from model.masks.networks import MaskNetworks, load_object_net
from model.method import TrainingRequest
from model.methods import METHODS, load_adapter, train_adapter
from model.runtime.progress import Progress
from tests.service.api.conftest import serving
from tests.service.embedded.running import LENIENT
from tests.worker.celery_worker import CeleryWorker
from tests.worker.stored import NORMALS, PAIRS, Service, png
from tests.worker.test_baselines import shown, succeeded, uploads

METHOD = METHODS["anomalydiffusion"]
TRAINED = {"view": "window", "steps": 2, "batch": 2, "views": 2, "fill_rank": 2, "seed": 4}
DRAWN = {"seed": 5, "steps": 2, "region": [0.0, 0.25, 1.0, 1.0], "sizes": [0.8, 1.0]}


def test_from_upload_to_dataset(
    service: Service,
    base: Base,
    start_worker: Callable[..., CeleryWorker],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("service.api.auth.LOCAL", "me")
    start_worker()
    open_to_all = service.settings.model_copy(update={"require_keys": False})
    with serving(open_to_all) as url, httpx2.Client(base_url=url, timeout=30, follow_redirects=True) as client:
        form = {"name": "blots", "method": "anomalydiffusion", "defect": "blot", **TRAINED}
        created = client.post("/v1/adapters", data={key: str(value) for key, value in form.items()}, files=uploads())
        assert created.status_code == 202, created.text
        adapter = succeeded(client, created.headers["location"])
        asked = {"adapter_id": adapter["id"], "num_pairs": 3, "limits": LENIENT, **DRAWN}
        refused = client.post("/v1/jobs", json={**asked, "strength": 0.5, "region": [0.5, 0, 0.2, 1]})
        assert refused.status_code == 422
        assert "region" in refused.text
        job = succeeded(client, client.post("/v1/jobs", json=asked).headers["location"])
        zipped = client.get(job["links"]["dataset"]).content
        outline = {"polygon": [[0.2, 0.2], [0.6, 0.2], [0.6, 0.5], [0.2, 0.5]], "normal": "good1.png"}
        asked_for = {**asked, "num_pairs": 1, "region": None, "sizes": None}
        wanted = {**asked_for, "placements": [outline]}
        placed = succeeded(client, client.post("/v1/jobs", json=wanted).headers["location"])
        (tmp_path / "placed.zip").write_bytes(client.get(placed["links"]["dataset"]).content)
        drawn = np.zeros(NORMALS[0].image.shape[:2], np.uint8)
        drawn[30:33, 5:30] = drawn[20:30, 5:9] = 255
        right = {"polygon": [[0.5, 0], [1, 0], [1, 1], [0.5, 1]]}
        mask = {"mask": base64.b64encode(png(drawn)).decode(), "normal": "good0.png", "defect": "blot"}
        wanted = {**asked_for, "placements": [mask]}
        unmet = client.post("/v1/jobs", json={**wanted, "forbidden": [right]})
        exact = succeeded(client, client.post("/v1/jobs", json=wanted).headers["location"])
        (tmp_path / "exact.zip").write_bytes(client.get(exact["links"]["dataset"]).content)
        bounded = {**asked, "num_pairs": 2, "region": None, "allowed": [{**right, "normal": "good1.png"}]}
        bounded = succeeded(client, client.post("/v1/jobs", json=bounded).headers["location"])
        (tmp_path / "bounded.zip").write_bytes(client.get(bounded["links"]["dataset"]).content)
    assert unmet.status_code == 422
    assert "of the mask placements[0] lies where no defect may" in unmet.json()["detail"]
    assert exact["counts"]["masks"] == {"placements[0]": 1}
    ((_, mask_bytes),) = shown(tmp_path / "exact.zip")
    assert mask_bytes == (drawn > 0).tobytes()
    assert exact["request"]["placements"][0]["mask"].startswith("sha256:")
    assert exact["stored_bytes"] > exact["dataset"]["bytes"]
    for _, content in shown(tmp_path / "bounded.zip"):
        left = np.frombuffer(content, np.bool_).reshape(drawn.shape)[:, : drawn.shape[1] // 2 - 1]
        assert not left.any()  # the outline has the column that it cuts
    assert {pair["normal"] for pair in manifest(tmp_path / "bounded.zip")} == {"good1"}
    ((_, mask),) = shown(tmp_path / "placed.zip")
    box = np.frombuffer(mask, np.bool_).reshape(NORMALS[1].image.shape[:2])
    assert box[12:27, 9:25].all()
    assert box.sum() == box[11:29, 8:27].sum()
    assert adapter["card"]["types"] == ["blot"]
    assert adapter["request"]["training"]["embedding_lr"] > 0
    assert job["request"]["region"] == DRAWN["region"]
    (tmp_path / "dataset.zip").write_bytes(zipped)
    assert read_dataset(tmp_path / "dataset.zip").num_pairs == 3
    assert shown(tmp_path / "dataset.zip") == by_library(base, tmp_path / "adapter", job["counts"]["attempts"])[:3]


def manifest(path: Path) -> list[dict[str, Any]]:
    with ZipFile(path) as file:
        return [json.loads(line) for line in file.read("manifest.jsonl").splitlines()]


def by_library(base: Base, folder: Path, attempts: int) -> list[tuple[bytes, bytes]]:
    settings = METHOD.resolve_training(base, TRAINED)
    normals = [NormalImage(f"{normal.name}.png", normal.image) for normal in NORMALS]
    networks = MaskNetworks(None, load_object_net(base))
    request = TrainingRequest(base, PAIRS, settings, "", "blot", networks, normals=normals, method="anomalydiffusion")
    for _ in train_adapter(request, folder, folder.with_name("work")):
        pass
    adapter = load_adapter(folder, base)
    sampling = METHOD.resolve_sampling(base, DRAWN, has_normals=True, adapter=adapter)
    sampler = METHOD.prepare(adapter, sampling, normals=normals, object_net=networks.object)
    candidates = [item.to_candidate() for item in sampler.decoded(0, attempts) if not isinstance(item, Progress)]
    return [(each.image.tobytes(), each.mask.tobytes()) for each in candidates if each.mask.any()]
