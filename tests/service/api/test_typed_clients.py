"""The client and its commands send several defect types, and how many pairs of each."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from redis import Redis
from typer.testing import CliRunner

from service.cli.app import app
from service.client import Client
from service.core.api_keys import create_key
from service.core.records.store import RecordStore
from tests.service.api.uploads import encoded, mask, picture

Folders = dict[str, tuple[Path, Path]]


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    found = {}
    for number, name in enumerate(("crack", "break")):
        images, masks = tmp_path / name / "images", tmp_path / name / "masks"
        for folder in (images, masks):
            folder.mkdir(parents=True)
        for index in range(2):
            (images / f"{index:03}.png").write_bytes(encoded(picture(10 * number + index)))
            (masks / f"{index:03}.png").write_bytes(encoded(mask(index)))
        found[name] = images, masks
    return found


@pytest.fixture
def key(redis: Redis) -> str:
    return create_key(redis, "typed")


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """A folder with a good part."""
    folder = tmp_path / "good"
    folder.mkdir()
    (folder / "fine.png").write_bytes(encoded(picture(50)))
    return folder


def test_the_client_names_the_type_of_each_file(address: str, key: str, folders: Folders, good: Path) -> None:
    images, masks = ({name: sorted(pair[side].iterdir()) for name, pair in folders.items()} for side in (0, 1))
    with Client(address, key) as client:
        made = client.create_adapter(images, masks, [good / "fine.png"], name="tiles", method="anomalydiffusion")
        assert made.model_extra is not None
        assert made.model_extra["defects"] == ["break", "crack"]


def test_the_commands_do_too(
    address: str,
    key: str,
    folders: Folders,
    store: RecordStore,
    good: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("PAIRFORGE_URL", address)
    monkeypatch.setenv("PAIRFORGE_API_KEY", key)
    images, masks = folders["crack"]
    also = ",".join(map(str, folders["break"]))
    command = ["adapters", "create", str(images), str(masks), "--defect", "crack", "--also", f"break={also}"]
    command += ["--set", "method=anomalydiffusion", "--json"]
    run = CliRunner().invoke(app, command)
    assert run.exit_code != 0
    assert "send at least one as normals[]" in run.output
    run = CliRunner().invoke(app, [*command, "--normals", str(good)])
    assert run.exit_code == 0, run.output
    adapter = json.loads(run.output.splitlines()[-1])["id"]
    record = store.records.get(adapter)
    assert record is not None
    assert record.request["defects"] == [{"name": "break", "pairs": 2}, {"name": "crack", "pairs": 2}]
    assert store.claims.claim(adapter, "worker")
    assert store.claims.succeed(adapter, "worker", {"request": {}}, 10)
    run = CliRunner().invoke(app, ["jobs", "create", adapter, "--defects", "crack=3,break=1", "--json"])
    assert run.exit_code == 0, run.output
    job = store.records.get(json.loads(run.output.splitlines()[-1])["id"])
    assert job is not None
    assert job.request["num_pairs"] == 4
    assert job.request["defects"] == {"crack": 3, "break": 1}
    Image.fromarray(np.eye(32, dtype=np.uint8) * 200).save(tmp_path / "region.bmp")
    run = CliRunner().invoke(
        app, ["jobs", "create", adapter, "-n", "1", "--forbidden", str(tmp_path / "region.bmp"), "--json"]
    )
    assert run.exit_code == 0, run.output
    job = store.records.get(json.loads(run.output.splitlines()[-1])["id"])
    assert job is not None
    assert job.request["forbidden"][0]["mask"].startswith("sha256:")
    for wrong, reason in (("crack", "is not NAME=N"), ("crack=1,crack=2", "crack is named twice")):
        run = CliRunner().invoke(app, ["jobs", "create", adapter, "--defects", wrong])
        assert run.exit_code != 0
        assert reason in run.output
